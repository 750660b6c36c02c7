// The instruction set that was chosen is the one that runs.
#include <algorithm>
#include <functional>

#include "sanitizers.hpp"
#include "step.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#endif

namespace batchnorm::test {
namespace {

std::vector<Target> expected_targets() {
  std::vector<Target> expected = {Target::scalar};
#if !defined(BATCHNORM_SCALAR_ONLY) && (defined(__GNUC__) || defined(__clang__))
  expected.push_back(Target::baseline);
#if defined(__x86_64__)
  unsigned eax, ebx, ecx = 0, edx;
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (ecx & bit_F16C) != 0;
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx2) expected.push_back(Target::avx2);
  if (has_avx2 && has_avx512) expected.push_back(Target::avx512);
#endif
#endif
  return expected;
}

TEST(Targets, OfferWhatTheCpuHas) { EXPECT_EQ(available_targets(), expected_targets()); }

TEST(Targets, TheBestIsActiveAtFirst) { EXPECT_EQ(active_target(), expected_targets().back()); }

TEST(Targets, ActiveIsTheOneThatWasSet) {
  const TargetGuard guard;
  for (const Target target : expected_targets()) {
    set_target(target);
    EXPECT_EQ(active_target(), target);
  }
}

TEST(Targets, HaveNames) {
  EXPECT_STREQ(name(Target::scalar), "scalar");
  EXPECT_STREQ(name(Target::baseline), "baseline");
  EXPECT_STREQ(name(Target::avx2), "avx2");
  EXPECT_STREQ(name(Target::avx512), "avx512");
}

TEST(Targets, OneTheCpuLacksIsRefused) {
  const Target before = active_target();
  for (const Target target : {Target::scalar, Target::baseline, Target::avx2, Target::avx512}) {
    const auto expected = expected_targets();
    if (std::find(expected.begin(), expected.end(), target) != expected.end()) continue;
    try {
      set_target(target);
      ADD_FAILURE() << name(target);
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), std::string("batchnorm::set_target: target is ") + name(target) +
                                  "; the best one here is " + name(expected.back()));
    }
    EXPECT_EQ(active_target(), before);
  }
}

#if defined(__x86_64__) && defined(__linux__)

/// Whether the instruction at `code` has a VEX or EVEX prefix (AVX and later), and how many bytes it moves at once.
struct MemoryAccess {
  bool is_avx = false;
  int bytes = 0;
};

// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, sections 2.1, 2.3 and 2.7.
MemoryAccess decode(const unsigned char* code) {
  const auto is_scalar = [](int prefix, unsigned char opcode) {
    const bool moves_integers = opcode == 0x6f || opcode == 0x7f;  // vmovdqu carries the F3 of scalar moves
    return prefix >= 2 && !moves_integers;
  };
  const auto width = [](int vector_length) { return 16 << vector_length; };
  if (*code == 0x62) return {true, is_scalar(code[2] & 3, code[4]) ? 8 : width(code[3] >> 5 & 3)};
  if (*code == 0xc5) return {true, is_scalar(code[1] & 3, code[2]) ? 8 : width(code[1] >> 2 & 1)};
  if (*code == 0xc4) return {true, is_scalar(code[2] & 3, code[3]) ? 8 : width(code[2] >> 2 & 1)};
  int prefix = 0;
  for (;; ++code) {
    if (*code == 0xf3 || *code == 0xf2)
      prefix = 2;
    else if (*code != 0x66 && (*code & 0xf0) != 0x40)
      break;
  }
  if (*code != 0x0f) return {false, 8};  // a general-purpose register
  return {false, is_scalar(prefix, code[1]) ? 8 : 16};
}

/// Memory that notes which instructions first touch each of its pages.
class WatchedMemory {
 public:
  explicit WatchedMemory(std::size_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  ~WatchedMemory() { munmap(memory_, bytes_); }
  WatchedMemory(const WatchedMemory&) = delete;
  WatchedMemory& operator=(const WatchedMemory&) = delete;

  float* data() { return static_cast<float*>(memory_); }

  /// The widest access during `work`, of those that came first on their page.
  template <class Work>
  MemoryAccess widest_access(const Work& work) {
    watched_ = this;
    widest_ = {};
    struct sigaction action = {}, before;
    action.sa_sigaction = note_access;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &before);
    mprotect(memory_, bytes_, PROT_NONE);
    work();
    mprotect(memory_, bytes_, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &before, nullptr);
    return widest_;
  }

 private:
  static constexpr std::uintptr_t page = 4096;

  static void note_access(int, siginfo_t* info, void* context) {
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    const auto begin = reinterpret_cast<std::uintptr_t>(watched_->memory_);
    if (address < begin || address >= begin + watched_->bytes_) {
      signal(SIGSEGV, SIG_DFL);  // a real fault: it returns, and ends the program
      return;
    }
    const auto code = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
    const MemoryAccess access = decode(reinterpret_cast<const unsigned char*>(code));
    if (access.bytes > watched_->widest_.bytes) watched_->widest_ = access;
    mprotect(reinterpret_cast<void*>(address / page * page), page, PROT_READ | PROT_WRITE);
  }

  static inline WatchedMemory* watched_ = nullptr;
  std::size_t bytes_;
  void* memory_;
  MemoryAccess widest_;
};

struct Phase {
  const char* name;
  std::function<void()> run;
};

/// Runs the four phases with every tensor in watched memory, `f(phase, access)` each.
template <class F>
void watch_phases(const Layout& layout, const F& f) {
  const std::size_t bytes = static_cast<std::size_t>(layout.size()) * sizeof(float);
  WatchedMemory input(bytes), output(bytes);
  const Index channels = layout.channels();
  Eigen::DSizes<Index, 4> dims(layout.dim(0), layout.dim(1), layout.dim(2), layout.dim(3));
  using Map = Eigen::TensorMap<Eigen::Tensor<float, 4, Eigen::RowMajor>>;
  Map x(input.data(), dims), out(output.data(), dims);
  const Eigen::Tensor<float, 4, Eigen::RowMajor> dy = x.constant(1.f);
  Moments moments(channels);
  GradientSums sums(channels);
  const Eigen::VectorXf gamma = Eigen::VectorXf::Ones(channels), beta = gamma;
  const Options options{.axis = layout.axis};
  const Phase phases[] = {
      {"collect_moments", [&] { collect_moments(x, moments, options); }},
      {"normalize", [&] { normalize(x, moments, gamma, beta, out, options); }},
      {"collect_gradients", [&] { collect_gradients(x, dy, moments, sums, options); }},
      {"input_gradient", [&] { input_gradient(x, dy, moments, gamma, sums, out, options); }},
  };
  for (const Phase& phase : phases) {
    f(phase.name, "reads", input.widest_access(phase.run));
    const std::string name = phase.name;
    if (name == "normalize" || name == "input_gradient") f(phase.name, "writes", output.widest_access(phase.run));
  }
}

#if !defined(BATCHNORM_TEST_ADDRESS_SANITIZER)  // it reads vectors with instructions of its own

TEST(Targets, TheChosenInstructionsTouchTheTensors) {
  const std::vector<Layout> layouts = {{{16, 8, 8, 64}, Order::row_major, -1}, {{4, 8, 64, 64}, Order::row_major, 1}};
  for_each_target([&] {
    const Target target = active_target();
    const int vector_bytes = target == Target::avx512 ? 64 : target == Target::avx2 ? 32 : 16;
    for (const Layout& layout : layouts) {
      watch_phases(layout, [&](const char* phase, const char* what, const MemoryAccess& access) {
        SCOPED_TRACE(testing::Message() << phase << " " << what << ", " << text(layout));
        if (target == Target::scalar) {
          EXPECT_LE(access.bytes, 16) << "a compiler may gather scalars into vectors of the baseline";
        } else {
          EXPECT_EQ(access.bytes, vector_bytes);
        }
        // A test compiled for AVX encodes narrow instructions with its prefix as well.
#if !defined(__AVX__)
        EXPECT_EQ(access.is_avx, target >= Target::avx2);
#endif
      });
    }
  });
}

#endif

TEST(Targets, DecoderKnowsTheInstructions) {
  const auto expect = [](std::vector<unsigned char> code, bool is_avx, int bytes) {
    const MemoryAccess access = decode(code.data());
    EXPECT_EQ(access.is_avx, is_avx);
    EXPECT_EQ(access.bytes, bytes);
  };
  expect({0x0f, 0x10, 0x07}, false, 16);                   // movups xmm0, [rdi]
  expect({0x66, 0x44, 0x0f, 0x10, 0x07}, false, 16);       // movupd xmm8, [rdi]
  expect({0xf3, 0x0f, 0x10, 0x07}, false, 8);              // movss xmm0, [rdi]
  expect({0xf3, 0x0f, 0x6f, 0x07}, false, 16);             // movdqu xmm0, [rdi]
  expect({0x48, 0x8b, 0x07}, false, 8);                    // mov rax, [rdi]
  expect({0xc5, 0xfc, 0x10, 0x07}, true, 32);              // vmovups ymm0, [rdi]
  expect({0xc5, 0xfa, 0x10, 0x07}, true, 8);               // vmovss xmm0, [rdi]
  expect({0xc4, 0xc1, 0x7c, 0x10, 0x00}, true, 32);        // vmovups ymm0, [r8]
  expect({0x62, 0xf1, 0x7c, 0x48, 0x10, 0x07}, true, 64);  // vmovups zmm0, [rdi]
  expect({0x62, 0xf1, 0x7c, 0x28, 0x10, 0x07}, true, 32);  // vmovups ymm0, [rdi], evex
}

#endif

}  // namespace
}  // namespace batchnorm::test
