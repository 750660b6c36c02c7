#pragma once

namespace example {

inline constexpr char residual_chart_script[] =
    R"gnuplot(# gnuplot -c train_residual.gp train_residual.csv train_residual.svg "name of the data"
csv = ARG1

# Vermilion and blue of Okabe and Ito: colour-blind eyes tell them apart too.
training = "#D55E00"
held_out = "#0072B2"
gray = "#444444"

set terminal svg size 1000,500 dynamic enhanced font "Helvetica,Arial,sans-serif,15" background rgb "white"
set output ARG2
set encoding utf8
set datafile separator comma
stats csv using "epoch" nooutput
set xrange [0.5:STATS_max + 0.5]

set multiplot
set label "{/:Bold=24 A residual network with batch normalization}" at screen 0.02,0.94
set label ARG3."; stochastic gradient descent, batches of 60" at screen 0.02,0.87 textcolor rgb gray
set border 3 linecolor rgb "#999999"
set xtics 0,ceil(STATS_max / 10.0) nomirror scale 0.5 textcolor rgb gray
set ytics nomirror scale 0.5 textcolor rgb gray
set grid ytics linetype 1 linecolor rgb "#e6e6e6"
set xlabel "epoch" textcolor rgb gray
set tmargin at screen 0.74
set bmargin at screen 0.16

set lmargin at screen 0.08
set rmargin at screen 0.47
unset key
set title "{/:Bold Held-out accuracy}"
set yrange [*:100]
set ytics format "%g %%"
plot csv using "epoch":(100 * column("held_out_accuracy")) with linespoints pointtype 7 pointsize 0.5 linewidth 2.5 \
  linecolor rgb held_out

unset label
set lmargin at screen 0.58
set rmargin at screen 0.97
set key right top vertical
set title "{/:Bold Loss}"
set yrange [0:*]
set ytics format "%g"
plot csv using "epoch":"training_loss" with linespoints pointtype 7 pointsize 0.5 linewidth 2.5 \
    linecolor rgb training title "training, shifted digits", \
  csv using "epoch":"held_out_loss" with linespoints pointtype 7 pointsize 0.5 linewidth 2.5 \
    linecolor rgb held_out title "held out"
unset multiplot
)gnuplot";

}  // namespace example
