// A matrix with at most two entries in a column, both positive and in adjacent rows, as banks of overlapping triangles
// have: A D Aᵀ is tridiagonal for every diagonal D.
//
// A column with the entries p in row s and q in row s + 1 belongs to segment s. Which of a segment's p u + q v are
// positive is a matter of q / p alone: with the columns in the order of that ratio they are all, none, the first few or
// the last few of them. So sums over the positive ones need no more than the place where the sign changes, found by
// bisection, and tables of the sums from the first column on and up to the last: some log₂(n / m) steps for a segment
// where a loop over its columns takes n / m.
//
// Two kernels find the columns' entries and put them in order. Counted, not measured, for 128 × 1025 float32: 0.5 MB
// read by 33 warps, a thread a column, 8 of its 128 loads under way at a time; then 129 warps, one to a segment, each
// of which looks through 1025 numbers for its own. Some 5 to 10 µs each, which is latency.
//
// Races: none between blocks, but for the counts, which are integers. Within a warp, what lanes read of each other they
// do after sync_warp(); the second kernel reads what the first has written.
#pragma once

#include "nnls_problem.h"

namespace torch_iir::cuda {

struct Sums {
  double pp = 0, pq = 0, qq = 0;
};

// The banks of a stretch of matrices.
struct Banks {
  struct Entry {
    double p, q;
    int column, segment;
  };
  struct Found {
    double p, q;
  };
  struct Item {
    double ratio;
    int column;
  };

  std::int64_t m, n;             // as far as an int goes
  unsigned *violations, *count;  // count: columns that begin in a row; the last, those without an entry
  int *row, *begin;              // row: where a column begins, m: it has no entry
  Found* found;
  double* ratio;
  Sums *up_to, *from, *total;
  Entry* entries;

  // One of them.
  struct Bank {
    const int* begin;
    const double* ratio;
    const Sums *up_to, *from, *total;
    const Entry* entries;

    // (s, s) of A Aᵀ
    TORCH_IIR_GPU double diagonal(int s) const { return total[s].pp + (s > 0 ? total[s - 1].qq : 0.0); }

    // Over the columns of a segment in which p u + q v > 0.
    TORCH_IIR_GPU Sums sums(int segment, double u, double v) const {
      const int first = begin[segment], last = begin[segment + 1];
      const bool falls = u > 0;
      if (first == last || !(falls || v > 0)) return {};
      if (falls && v > 0) return up_to[last - 1];
      int low = first, high = last;  // of the first column whose sign is not the first one's
      while (low < high) {
        const int middle = low + (high - low) / 2;
        const double r = ratio[middle], value = r < 0 ? fma(-r, u, v) : fma(r, v, u);
        if ((value > 0) == falls) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      if (falls) return low > first ? up_to[low - 1] : Sums{};
      return low == first ? up_to[last - 1] : low < last ? from[low] : Sums{};
    }
  };
  TORCH_IIR_GPU Bank bank(std::int64_t matrix) const {
    return {begin + matrix * (m + 2), ratio + matrix * n, up_to + matrix * n,
            from + matrix * n,        total + matrix * m, entries + matrix * n};
  }

  static std::int64_t bytes_of_one(std::int64_t m, std::int64_t n) {
    return n * static_cast<std::int64_t>(sizeof(int) + sizeof(Found) + sizeof(double) + 2 * sizeof(Sums) +
                                         sizeof(Entry)) +
           (m + 2) * static_cast<std::int64_t>(sizeof(int) + sizeof(unsigned) + sizeof(Sums));
  }
  void take(Scratch& scratch, std::int64_t matrices) {
    row = scratch.take<int>(matrices * n);
    begin = scratch.take<int>(matrices * (m + 2));
    found = scratch.take<Found>(matrices * n);
    ratio = scratch.take<double>(matrices * n);
    up_to = scratch.take<Sums>(matrices * n);
    from = scratch.take<Sums>(matrices * n);
    total = scratch.take<Sums>(matrices * m);
    entries = scratch.take<Entry>(matrices * n);
  }
};

inline constexpr int find_threads = 32;

// The entries of each column; with `only_count`, no more than what speaks against its being a bank's. A count is an
// integer: it does not matter who adds first.
static TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(find_threads, 1)
    find_entries(AnyMatrices<const double> a, Batch batch, std::int64_t sharing, std::int64_t first_matrix,
                 std::int64_t matrices, Banks banks, bool only_count) {
  const int m = static_cast<int>(banks.m);
  const std::int64_t n = banks.n, columns = matrices * n;
  for (std::int64_t at = block() * find_threads + thread(); at < columns; at += blocks() * find_threads) {
    const std::int64_t matrix = at / n, j = at % n;
    const std::int64_t from = a.row(batch, (first_matrix + matrix) * sharing) + j * a.step;
    constexpr int together = 8;
    int row = m;
    double p = 0, q = 0;
    bool usable = true;
    for (int i = 0; i < m; i += together) {
      double value[together];
      TORCH_IIR_UNROLL
      for (int t = 0; t < together; ++t) value[t] = i + t < m ? load(a, from + (i + t) * a.down) : 0.0;
      TORCH_IIR_UNROLL
      for (int t = 0; t < together; ++t) {
        if (value[t] == 0) continue;
        if (!(value[t] > 0 && value[t] < infinity)) usable = false;
        if (row == m) {
          row = i + t;
          p = value[t];
        } else if (i + t == row + 1) {
          q = value[t];
        } else {
          usable = false;
        }
      }
    }
    if (!usable) fetch_add(banks.violations, 1);
    if (only_count) continue;
    banks.row[at] = row;
    banks.found[at] = {p, q};
    fetch_add(banks.count + matrix * (banks.m + 1) + row, 1);
  }
}

// Ratios in [0, 1], and for p < q in [−1, 0): in the order of q / p these are 0 … 1, then −1 … 0.
TORCH_IIR_GPU bool comes_before(double r, double s) { return (r < 0) == (s < 0) ? r < s : s < 0; }

// By a warp: items in the order of their ratios, those of one ratio as they were. `other` is as large; says where they
// are in the end. Runs of sorted items are merged in pairs, each item finding its place in the other run by bisection.
TORCH_IIR_GPU Banks::Item* sort_items(Banks::Item* items, Banks::Item* other, int count) {
  for (std::int64_t run = 1; run < count; run *= 2) {
    for (std::int64_t i = lane(); i < count; i += warp_size) {
      const Banks::Item item = items[i];
      const bool second = i / run % 2 != 0;
      const std::int64_t pair = i / (2 * run) * 2 * run;
      const std::int64_t begin = second ? pair : minimum<std::int64_t>(pair + run, count);
      std::int64_t low = begin, high = minimum<std::int64_t>(begin + run, count);
      if (second) high = pair + run;
      while (low < high) {
        const std::int64_t middle = low + (high - low) / 2;
        const double r = items[middle].ratio;
        if (second ? !comes_before(item.ratio, r) : comes_before(r, item.ratio)) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      other[i + (low - begin) - (second ? run : 0)] = item;
    }
    sync_warp();
    Banks::Item* const sorted = other;
    other = items;
    items = sorted;
  }
  return items;
}

// By a warp: to[i] = the sum of all up to i, or with `backwards` from i on.
TORCH_IIR_GPU void running_sums(const Banks::Entry* entries, int count, bool backwards, Sums* to) {
  double before[3] = {};
  for (std::int64_t done = 0; done < count; done += warp_size) {
    const std::int64_t nth = done + lane(), i = backwards ? count - 1 - nth : nth;
    double sum[3] = {};
    if (nth < count) {
      const double p = entries[i].p, q = entries[i].q;
      sum[0] = p * p;
      sum[1] = p * q;
      sum[2] = q * q;
    }
    TORCH_IIR_UNROLL
    for (int c = 0; c < 3; ++c) {
      TORCH_IIR_UNROLL
      for (int by = 1; by < warp_size; by *= 2) {
        const double other = shuffle_up(sum[c], by);
        if (lane() >= by) sum[c] += other;
      }
      sum[c] += before[c];
      before[c] = shuffle(sum[c], warp_size - 1);
    }
    if (nth < count) to[i] = {sum[0], sum[1], sum[2]};
  }
}

// A warp for each segment of each matrix, and for its columns without an entry, which come last.
static TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, 1) sort_entries(Banks banks, std::int64_t matrices) {
  if (*banks.violations != 0) return;
  const int m = static_cast<int>(banks.m);
  const std::int64_t n = banks.n;
  for (std::int64_t which = block(); which < matrices * (banks.m + 1); which += blocks()) {
    const std::int64_t matrix = which / (banks.m + 1);
    const int segment = static_cast<int>(which % (banks.m + 1));
    const unsigned* const counts = banks.count + matrix * (banks.m + 1);
    double before = 0;  // exact
    for (int s = lane(); s < segment; s += warp_size) before += counts[s];
    const int begin = static_cast<int>(warp_sum(before)), count = static_cast<int>(counts[segment]);
    if (lane() == 0) {
      banks.begin[matrix * (banks.m + 2) + segment] = begin;
      if (segment == m) banks.begin[matrix * (banks.m + 2) + m + 1] = begin + count;
    }

    // The tables are not there yet: their memory serves to sort in.
    auto* const items = reinterpret_cast<Banks::Item*>(banks.up_to + matrix * n + begin);
    auto* const other = reinterpret_cast<Banks::Item*>(banks.from + matrix * n + begin);
    constexpr int together = 4;
    int filled = 0;
    for (std::int64_t j = lane(); filled < count; j += together * warp_size) {
      bool mine[together];
      TORCH_IIR_UNROLL
      for (int t = 0; t < together; ++t) {
        const std::int64_t column = j + t * warp_size;
        mine[t] = column < n && banks.row[matrix * n + column] == segment;
      }
      TORCH_IIR_UNROLL
      for (int t = 0; t < together; ++t) {
        const unsigned all = ballot(mine[t]);
        if (mine[t]) {
          const int column = static_cast<int>(j + t * warp_size);
          const auto [p, q] = banks.found[matrix * n + column];
          const double ratio = p < q ? -maximum(p / q, least_normal) : p > 0 ? q / p : 0.0;
          items[filled + count_bits(all & ((1u << lane()) - 1))] = {ratio, column};
        }
        filled += count_bits(all);
      }
    }
    sync_warp();
    const Banks::Item* const sorted = segment < m ? sort_items(items, other, count) : items;
    Banks::Entry* const entries = banks.entries + matrix * n + begin;
    for (int i = lane(); i < count; i += warp_size) {
      const auto [p, q] = banks.found[matrix * n + sorted[i].column];
      entries[i] = {p, q, sorted[i].column, segment < m ? segment : 0};
      banks.ratio[matrix * n + begin + i] = sorted[i].ratio;
    }
    sync_warp();  // before the tables take the items' place
    running_sums(entries, count, false, banks.up_to + matrix * n + begin);
    running_sums(entries, count, true, banks.from + matrix * n + begin);
    sync_warp();
    if (segment < m && lane() == 0) {
      banks.total[matrix * banks.m + segment] = count > 0 ? banks.up_to[matrix * n + begin + count - 1] : Sums{};
    }
  }
}

}  // namespace torch_iir::cuda
