#pragma once

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "accuracy.hpp"
#include "results.hpp"

namespace compare {

inline std::string text_of(const std::optional<double>& value, const char* format = "%.2f") {
  if (!value) return "-";
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, format, *value);
  return buffer;
}

/// Prints columns as wide as their longest entry; the first is flush left.
class Table {
 public:
  explicit Table(std::vector<std::string> header) { add(std::move(header)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  void print() const {
    std::vector<int> widths;
    for (const auto& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()));
      for (std::size_t k = 0; k < row.size(); ++k) widths[k] = std::max(widths[k], static_cast<int>(row[k].size()));
    }
    for (const auto& row : rows_) {
      for (std::size_t k = 0; k < row.size(); ++k) {
        std::printf("%s%*s", k == 0 ? "" : "  ", k == 0 ? -widths[k] : widths[k], row[k].c_str());
      }
      std::printf("\n");
    }
    std::printf("\n");
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// Those with a column in the tables of speed.
inline std::vector<std::string> competitors(const std::vector<Cell>& cells) {
  std::vector<std::string> names = names_of({Role::competitor, Role::variant});
  std::erase_if(names, [&](const std::string& library) {
    return std::none_of(cells.begin(), cells.end(), [&](const Cell& cell) { return cell.seconds.count(library) > 0; });
  });
  return names;
}

/// The cells of one table: one pass, layout, number of threads and scalar.
using Section = std::tuple<std::string, int, Pass, Layout>;

inline Section section_of(const Cell& cell) {
  return {cell.scalar, cell.problem.threads, cell.pass, cell.problem.layout};
}

inline std::string title(const Section& section) {
  const auto& [scalar, threads, pass, layout] = section;
  return std::string(name(pass)) + ", " + name(layout) + ", " + scalar + ", " + std::to_string(threads) +
         (threads == 1 ? " thread" : " threads");
}

inline std::map<Section, std::vector<Cell>> by_section(const std::vector<Cell>& cells) {
  std::map<Section, std::vector<Cell>> sections;
  for (const Cell& cell : cells) sections[section_of(cell)].push_back(cell);
  return sections;
}

/// The same on one thread, if that was measured.
inline const Cell* on_one_thread(const Cell& cell, const std::vector<Cell>& cells) {
  const auto found = std::find_if(cells.begin(), cells.end(), [&](const Cell& other) {
    return other.problem.threads == 1 && other.pass == cell.pass && other.scalar == cell.scalar &&
           other.problem.layout == cell.problem.layout && other.problem.dims == cell.problem.dims;
  });
  return found == cells.end() ? nullptr : &*found;
}

/// Our own figures of one row.
inline std::vector<std::string> own_figures(const Cell& cell) {
  const auto seconds = cell.seconds_of(subject());
  if (!seconds) return {"-", "-", "-", "-", "-"};
  return {text_of(*seconds * 1e6, "%.1f"), text_of(1e-9 * static_cast<double>(cell.bytes()) / *seconds, "%.1f"),
          text_of(fraction_of_ceiling(cell)), text_of(fraction_with_sums(cell)), text_of(cell.workspace_bytes, "%.0f")};
}

/// What more threads gain, and what they gain for the ceiling.
inline std::vector<std::string> gains(const Cell& cell, const std::vector<Cell>& cells) {
  const Cell* const one = on_one_thread(cell, cells);
  if (one == nullptr) return {"-", "-"};
  const auto seconds = cell.seconds_of(subject()), seconds_of_one = one->seconds_of(subject());
  return {seconds && seconds_of_one ? text_of(*seconds_of_one / *seconds) : "-",
          text_of(one->ceiling() / cell.ceiling())};
}

inline void print_section(const Section& section, const std::vector<Cell>& rows, const std::vector<Cell>& cells) {
  std::printf("%s: times of the others over ours\n", title(section).c_str());
  const bool has_threads = std::get<int>(section) > 1;
  std::vector<std::string> header = {"shape", "network", "us", "GB/s", "of ceiling", "with sums", "workspace bytes"};
  if (has_threads) header.insert(header.end(), {"speed-up", "ceiling's"});
  const std::vector<std::string> others = competitors(cells);
  header.insert(header.end(), others.begin(), others.end());
  Table table(header);
  for (const Cell& cell : rows) {
    std::vector<std::string> row = {text_of(cell.problem.dims), cell.shape.network};
    const auto add = [&](const std::vector<std::string>& figures) {
      row.insert(row.end(), figures.begin(), figures.end());
    };
    add(own_figures(cell));
    if (has_threads) add(gains(cell, cells));
    for (const std::string& library : others) row.push_back(text_of(ratio(cell, library)));
    table.add(row);
  }
  table.print();
}

inline void print_tables(const std::vector<Cell>& cells) {
  for (const auto& [section, rows] : by_section(cells)) print_section(section, rows, cells);
}

/// Geometric means over the shapes of networks; what they would be at the ceiling; and in brackets the least of them.
inline void print_means(std::vector<Cell> cells) {
  std::erase_if(cells, [](const Cell& cell) { return cell.shape.group != Group::network; });
  if (cells.empty()) return;
  std::printf("geometric means over the shapes of networks, of what the ceiling allows (least)\n");
  const std::vector<std::string> others = competitors(cells);
  std::vector<std::string> header = {"", "of ceiling", "with sums"};
  header.insert(header.end(), others.begin(), others.end());
  Table table(header);
  const auto summary = [](const std::vector<Cell>& rows, const auto& value) {
    Summary result;
    for (const Cell& cell : rows) result.add(value(cell), text_of(cell.problem.dims));
    return result;
  };
  const auto text = [](const Summary& ours, const std::string& allowed) {
    if (!ours.mean()) return std::string("-");
    return text_of(ours.mean()) + allowed + " (" + text_of(ours.least()) + " " + ours.least_of() + ")";
  };
  for (const auto& [section, rows] : by_section(cells)) {
    std::vector<std::string> row = {title(section)};
    row.push_back(text(summary(rows, [](const Cell& cell) { return fraction_of_ceiling(cell); }), ""));
    row.push_back(text(summary(rows, fraction_with_sums), ""));
    for (const std::string& library : others) {
      const Summary fractions = summary(rows, [&](const Cell& cell) { return fraction_of_ceiling(cell, library); });
      const std::string allowed = fractions.mean() ? " of " + text_of(1 / *fractions.mean()) : "";
      row.push_back(text(summary(rows, [&](const Cell& cell) { return ratio(cell, library); }), allowed));
    }
    table.add(row);
  }
  table.print();
}

/// What a call costs beyond its arithmetic, where there is hardly any.
inline void print_overheads(const std::vector<Cell>& cells) {
  for (const Cell& cell : cells) {
    for (const std::string& reference : names_of({Role::reference})) {
      const auto ours = cell.seconds_of(subject()), plain = cell.seconds_of(reference);
      if (!ours || !plain) continue;
      std::printf("%s of %s values, %s: %.0f ns, which is %.0f ns more than a %s\n\n", name(cell.pass),
                  text_of(cell.problem.dims).c_str(), cell.scalar.c_str(), *ours * 1e9, (*ours - *plain) * 1e9,
                  reference.c_str());
    }
  }
}

inline void print_accuracy(const std::vector<AccuracyRow>& rows, const char* result, double Errors::*error) {
  std::printf("largest error of %s in training, 32x16x28x28, without gamma and beta\n", result);
  const std::vector<std::string> names = names_of({Role::subject, Role::competitor});
  std::vector<std::string> header = {"input", "layout"};
  header.insert(header.end(), names.begin(), names.end());
  Table table(header);
  for (const AccuracyRow& row : rows) {
    std::vector<std::string> texts = {row.input, name(row.layout)};
    for (const std::string& library : names) {
      const auto found = row.errors.find(library);
      const double largest = found == row.errors.end() ? 0 : found->second.*error;
      const char* const format = std::isfinite(largest) ? "%.1e" : "not finite";
      texts.push_back(found == row.errors.end() ? "-" : text_of(largest, format));
    }
    table.add(texts);
  }
  table.print();
}

inline void write_csv(const std::string& path, const std::vector<Cell>& cells) {
  std::ofstream file(path);
  file << "scalar,pass,layout,threads,group,network,shape,bytes,library,seconds,workspace_bytes\n";
  for (const Cell& cell : cells) {
    for (const auto& [library, seconds] : cell.seconds) {
      file << cell.scalar << ',' << name(cell.pass) << ',' << name(cell.problem.layout) << ',' << cell.problem.threads
           << ',' << name(cell.shape.group) << ',' << cell.shape.network << ',' << text_of(cell.problem.dims) << ','
           << cell.bytes() << ',' << '"' << library << '"' << ',' << seconds << ',';
      if (library == subject() && cell.workspace_bytes) file << *cell.workspace_bytes;
      file << '\n';
    }
  }
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

}  // namespace compare
