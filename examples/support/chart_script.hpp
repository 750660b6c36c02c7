#pragma once

namespace example {

inline constexpr char chart_script[] =
    R"gnuplot(# gnuplot -c train_digits.gp train_digits.csv train_digits.svg "name of the data"
csv = ARG1
rates = "0.1 1 10"
weight_stds = "0.1 0.01"

# Vermilion and blue of Okabe and Ito: colour-blind eyes tell them apart too.
color(batch_norm) = batch_norm ? "#0072B2" : "#D55E00"
gray = "#444444"
only(weight_std, rate, batch_norm, name) = column("weight_std") == weight_std && column("rate") == rate \
  && column("batch_norm") == batch_norm ? column(name) : NaN
accuracy(weight_std, rate, batch_norm) = 100 * only(weight_std, rate, batch_norm, "held_out_accuracy")
shown(batch_norm, name) = only(0.1, 0.1, batch_norm, name)
left_edge(panel) = 0.075 + 0.32 * panel

set terminal svg size 1200,900 dynamic enhanced font "Helvetica,Arial,sans-serif,15" background rgb "white"
set output ARG2
set encoding utf8
set datafile separator comma
stats csv using "step" nooutput
set style fill transparent solid 0.25 noborder
unset key

set multiplot
set label "{/:Bold=24 Training with and without batch normalization}" at screen 0.02,0.965
set label ARG3."; sigmoid network 784-100-100-100-10; same initial weights, same batches of 60" \
  at screen 0.02,0.925 textcolor rgb gray
set lmargin at screen 0.01
set rmargin at screen 0.60
set tmargin at screen 0.90
set bmargin at screen 0.84
unset border
unset tics
set key left center Left reverse horizontal samplen 2.5
plot [0:1][0:1] -1 notitle, \
  keyentry with lines linewidth 5 linecolor rgb color(0) title "without batch normalization", \
  keyentry with lines linewidth 5 linecolor rgb color(1) title "with batch normalization", \
  keyentry with lines linewidth 2.5 linecolor rgb gray title "initial weights N(0, 0.1)", \
  keyentry with lines linewidth 2.5 dashtype 2 linecolor rgb gray title "initial weights N(0, 0.01)"
unset label
unset key

set xrange [0:STATS_max]
set border 3 linecolor rgb "#999999"
set xtics STATS_max / 5 nomirror scale 0.5 textcolor rgb gray
set ytics nomirror scale 0.5 textcolor rgb gray
set grid ytics linetype 1 linecolor rgb "#e6e6e6"

set tmargin at screen 0.77
set ylabel "held-out accuracy" offset 1.5 textcolor rgb gray
set bmargin at screen 0.50
set yrange [0:100]
set ytics 20 format "%g %%"
do for [panel = 0:2] {
  rate = real(word(rates, panel + 1))
  set lmargin at screen left_edge(panel)
  set rmargin at screen left_edge(panel) + 0.25
  set title sprintf("{/:Bold Learning rate %g}", rate)
  plot for [b = 0:1] for [k = 1:2] csv using "step":(accuracy(real(word(weight_stds, k)), rate, b)) \
    with lines linewidth 2.5 dashtype k linecolor rgb color(b)
  unset ylabel
}

set tmargin at screen 0.38
set bmargin at screen 0.10
set yrange [-3:3]
set ytics 1 format "%g"
set xlabel "training step (rate 0.1, weights N(0, 0.1))" textcolor rgb gray
set label "15th to 85th percentile and median" at graph 0.5,0.06 center textcolor rgb gray
do for [b = 0:1] {
  set lmargin at screen left_edge(b)
  set rmargin at screen left_edge(b) + 0.25
  set title "{/:Bold Input of one sigmoid, ".(b ? "with}" : "without}")
  plot csv using "step":(shown(b, "percentile_15")):"percentile_85" with filledcurves fillcolor rgb color(b), \
    csv using "step":(shown(b, "percentile_50")) with lines linewidth 2.5 linecolor rgb color(b)
}

unset label
set lmargin at screen left_edge(2)
set rmargin at screen left_edge(2) + 0.25
set title "{/:Bold Loss}"
set key right top vertical
set yrange [0:2.5]
set ytics 0.5 format "%.1f"
plot for [b = 0:1] csv using "step":(shown(b, "held_out_loss")) \
    with lines linewidth 2.5 linecolor rgb color(b) notitle, \
  for [b = 0:1] csv using "step":(shown(b, "training_loss")) \
    with lines linewidth 2.5 dashtype 3 linecolor rgb color(b) notitle, \
  keyentry with lines linewidth 2.5 linecolor rgb gray title "held out", \
  keyentry with lines linewidth 2.5 dashtype 3 linecolor rgb gray title "training"
unset multiplot
)gnuplot";

}  // namespace example
