#pragma once

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "results.hpp"

namespace compare {

inline constexpr char chart_style[] = R"gnuplot(
set encoding utf8
set multiplot
set label "{/:Bold=22 Fraction of the ceiling}" at screen 0.015, top + 98.0 / height
set label "the least time that reading and writing the tensors of a pass takes, over the time of a library: \
more is better" at screen 0.015, top + 74.0 / height textcolor rgb gray

set lmargin at screen 0.01
set rmargin at screen 0.99
set tmargin at screen top + 62.0 / height
set bmargin at screen top + 36.0 / height
unset border
unset tics
set key left center Left reverse horizontal samplen 1
plot [0:1][0:1] -1 notitle, \
  for [k = 1:words(libraries)] keyentry with points pointtype 7 pointsize size(k) linecolor rgb word(colors, k) \
    title word(libraries, k), \
  for [k = 1:words(threads)] keyentry with points pointtype int(word(points, k)) linecolor rgb gray \
    title word(threads, k).(word(threads, k) eq "1" ? " thread" : " threads")
unset key
unset label

set tmargin at screen top
set bmargin at screen bottom
set border 3 linecolor rgb "#999999"
set logscale x
set xrange [least:most]
set yrange [rows:-0.5]
set xtics (0.00001, 0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10) nomirror scale 0.5 textcolor rgb gray
set format x "%g"
set grid xtics ytics linetype 1 linecolor rgb "#e6e6e6"
left_edge(panel) = 0.21 + 0.265 * panel
of(k, t) = column(1) == k && column(2) == t
shifted(y, t) = y + 0.32 * (t - 0.5 * (words(threads) + 1))
)gnuplot";

/// A string of gnuplot's in which nothing but the quote itself is special.
inline std::string literal(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("''") : std::string(1, c);
  return result + "'";
}

/// gnuplot's list of words; blanks would part a word in two.
inline std::string words(std::vector<std::string> texts) {
  std::string result;
  for (std::string& text : texts) {
    std::replace(text.begin(), text.end(), ' ', '_');
    result += text + ' ';
  }
  return literal(result);
}

/// One row per shape, grouped by layout and network, from the top down.
class ChartRows {
 public:
  explicit ChartRows(const std::vector<Cell>& cells) {
    for (const Layout layout : layouts) {
      std::string group;
      for (const Cell& cell : cells) {
        if (cell.problem.layout != layout || y_.count(key_of(cell)) > 0) continue;
        const std::string network = std::string("{/:Bold ") + name(layout) + "}  " + cell.shape.network;
        if (network != group) add_group(group = network);
        y_[key_of(cell)] = next_;
        add_label(text_of(cell.problem.dims), 0.205, "right", next_);
        next_ += 1;
      }
    }
  }

  double y_of(const Cell& cell) const { return y_.at(key_of(cell)); }
  double height() const { return next_; }
  std::string labels() const { return labels_.str(); }
  /// Lines that lead the eye from a label to its points.
  std::string lines() const {
    std::string list;
    for (const auto& [key, y] : y_) list += (list.empty() ? "'' " : ", '' ") + std::to_string(y);
    return "set ytics (" + list + ") scale 0\n";
  }

 private:
  using Key = std::pair<Layout, Dimensions>;
  static Key key_of(const Cell& cell) { return {cell.problem.layout, cell.problem.dims}; }

  void add_group(const std::string& title) {
    if (next_ > 0) next_ += 0.6;
    add_label(title, 0.015, "left", next_);
  }
  void add_label(const std::string& text, double x, const char* side, double y) {
    labels_ << "set label " << literal(text) << " at screen " << x << ", first " << y << ' ' << side << '\n';
  }

  std::map<Key, double> y_;
  double next_ = 0;
  std::ostringstream labels_;
};

/// gnuplot's commands for the chart at `path`.
class ChartScript {
 public:
  ChartScript(const std::vector<Cell>& cells, const std::string& path) : cells_(cells), rows_(cells) {
    for (const Cell& cell : cells) threads_.insert(cell.problem.threads);
    for (const std::string& library : names_of({Role::subject, Role::competitor})) {
      const auto timed = [&](const Cell& cell) { return fraction_of_ceiling(cell, library).has_value(); };
      if (std::any_of(cells.begin(), cells.end(), timed)) libraries_.push_back(library);
    }
    write_variables(path);
    script_ << chart_style << rows_.lines();
    for (std::size_t k = 0; k < passes.size(); ++k) write_panel(k);
    script_ << "unset multiplot\n";
  }

  std::string text() const { return script_.str(); }

 private:
  void write_variables(const std::string& path) {
    constexpr double row_pixels = 19, head_pixels = 125, foot_pixels = 40;
    const double height = rows_.height() * row_pixels + head_pixels + foot_pixels;
    std::vector<std::string> thread_texts;
    for (const int threads : threads_) thread_texts.push_back(std::to_string(threads));
    script_ << "set terminal svg size 1200," << height << " dynamic enhanced background rgb 'white' "
            << "font 'Helvetica,Arial,sans-serif,14'\n"
            << "set output " << literal(path) << '\n'
            << "height = 1.0 * " << height << "; top = 1 - " << head_pixels << " / height; bottom = " << foot_pixels
            << " / height\n"
            << "rows = " << rows_.height() << "; least = " << least() << "; most = 2.5\n"
            << "libraries = " << words(libraries_) << "; threads = " << words(thread_texts)
            << '\n'
            // Of Okabe and Ito: colour-blind eyes tell them apart, too.
            << "colors = '#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9'; gray = '#444444'\n"
            << "points = '7 6 5 4 9 8'; size(k) = k == 1 ? 0.8 : 0.6\n";
  }

  double least() const {
    double result = 0.5;
    for (const Cell& cell : cells_) {
      for (const std::string& library : libraries_) {
        result = std::min(result, 0.8 * fraction_of_ceiling(cell, library).value_or(1));
      }
    }
    return result;
  }

  void write_panel(std::size_t panel) {
    script_ << "$points" << panel << " << END\n";
    for (const Cell& cell : cells_) {
      if (cell.pass == passes[panel]) write_points(cell);
    }
    script_ << "END\n"
            << "set lmargin at screen left_edge(" << panel << ")\n"
            << "set rmargin at screen left_edge(" << panel << ") + 0.25\n"
            << "set title '{/:Bold " << name(passes[panel]) << "}' offset 0,-0.5\n"
            << (panel == 0 ? rows_.labels() : "unset label\n")
            << "set arrow 1 from 1, graph 0 to 1, graph 1 nohead linewidth 1.5 linecolor rgb gray\n"
            << "plot for [k = words(libraries):1:-1] for [t = 1:words(threads)] $points" << panel
            << " using (of(k, t) ? column(3) : NaN):(shifted($4, t)) with points pointtype int(word(points, t)) "
               "pointsize size(k) "
            << "linewidth 1.5 linecolor rgb word(colors, k)\n";
  }

  /// Lines of library, threads (both by their place in the lists), fraction, row.
  void write_points(const Cell& cell) {
    const auto t = std::distance(threads_.begin(), threads_.find(cell.problem.threads)) + 1;
    for (std::size_t k = 0; k < libraries_.size(); ++k) {
      if (const auto fraction = fraction_of_ceiling(cell, libraries_[k])) {
        script_ << k + 1 << ' ' << t << ' ' << *fraction << ' ' << rows_.y_of(cell) << '\n';
      }
    }
  }

  const std::vector<Cell>& cells_;
  ChartRows rows_;
  std::set<int> threads_;
  std::vector<std::string> libraries_;
  std::ostringstream script_;
};

inline bool ends_as_svg(const std::string& path) {
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return text.find("</svg>") != std::string::npos;
}

/// Draws with gnuplot.
inline void draw_chart(const std::string& path, const std::vector<Cell>& cells) {
  const std::string script = ChartScript(cells, path).text();
  std::signal(SIGPIPE, SIG_IGN);  // where there is no gnuplot, its exit code says so
  std::FILE* const gnuplot = popen("gnuplot", "w");
  if (gnuplot == nullptr) throw std::runtime_error("gnuplot cannot be run");
  std::fputs(script.c_str(), gnuplot);
  // gnuplot is silent about a full disk.
  if (pclose(gnuplot) != 0 || !ends_as_svg(path)) {
    throw std::runtime_error(path + " cannot be drawn; is gnuplot installed (Debian: gnuplot-nox)?");
  }
}

}  // namespace compare
