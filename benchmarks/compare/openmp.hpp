#pragma once

// oneDNN and libtorch run on GCC's OpenMP, libgomp, whichever compiler builds this program. Its functions are declared
// here because the omp.h of another compiler belongs to another OpenMP, and two of them in one process compete.

extern "C" {
void omp_set_num_threads(int threads);
int omp_pause_resource_all(int kind);
}

namespace compare {

/// Ends the threads that would spin for some milliseconds after their last task; the next task starts new ones.
inline void end_openmp_threads() {
  constexpr int soft = 1;  // omp_pause_soft
  omp_pause_resource_all(soft);
}

}  // namespace compare
