#pragma once

#include "batchnorm/batchnorm.hpp"

// Compiles a layer's kernels once for a whole program. Each file that calls a layer otherwise compiles them for itself,
// which takes most of its time. Outside namespaces, a header that those files include has
//   BATCHNORM_LAYER(extern template, float, batchnorm::Relu);
// and one source file, which includes it,
//   BATCHNORM_LAYER(template, float, batchnorm::Relu);
// What is not declared so, as calls whose tensors have different scalars, is compiled where it is used, as ever. If
// that source file has other optimizations than the rest (-O2 in a debug build), its object is to be linked first:
// linkers take the first of kernels that several files have compiled.

/// forward, infer, backward and backward_parameters of batchnorm::BatchNorm<scalar, ...>, whose second argument,
/// batchnorm::Identity where there is no activation, must be spelled out: of tensors of `scalar`, a name without
/// commas, of every type, on every device.
///
/// Linker: reports as undefined what is declared `extern template` and nowhere `template`.
#define BATCHNORM_LAYER(extern_template, scalar, ...)                                            \
  extern_template void batchnorm::detail::normalize_into(                                        \
      batchnorm::detail::Layer<scalar, __VA_ARGS__>&, const batchnorm::detail::AnyDevice&,       \
      const batchnorm::detail::Inputs<scalar>&, const batchnorm::detail::View<scalar>&);         \
  extern_template void batchnorm::detail::infer_into(                                            \
      const batchnorm::detail::Layer<scalar, __VA_ARGS__>&, const batchnorm::detail::AnyDevice&, \
      const batchnorm::detail::Inputs<scalar>&, const batchnorm::detail::View<scalar>&);         \
  extern_template void batchnorm::detail::differentiate(                                         \
      batchnorm::detail::Layer<scalar, __VA_ARGS__>&, const batchnorm::detail::AnyDevice&,       \
      const batchnorm::detail::Inputs<scalar, scalar>&, const batchnorm::detail::View<scalar>&,  \
      const batchnorm::BackwardOptions<batchnorm::StatisticOf<scalar>>&);                        \
  extern_template void batchnorm::detail::differentiate_parameters(                              \
      batchnorm::detail::Layer<scalar, __VA_ARGS__>&, const batchnorm::detail::AnyDevice&,       \
      const batchnorm::detail::Inputs<scalar, scalar>&, batchnorm::ParameterGradients)

/// The same for forward_add, infer_add and backward_add.
#define BATCHNORM_RESIDUAL_LAYER(extern_template, scalar, ...)                                                         \
  extern_template void batchnorm::detail::normalize_into(                                                              \
      batchnorm::detail::Layer<scalar, __VA_ARGS__>&, const batchnorm::detail::AnyDevice&,                             \
      const batchnorm::detail::Inputs<scalar, scalar>&, const batchnorm::detail::OutputOfSum<scalar, __VA_ARGS__>&);   \
  extern_template void batchnorm::detail::infer_into(                                                                  \
      const batchnorm::detail::Layer<scalar, __VA_ARGS__>&, const batchnorm::detail::AnyDevice&,                       \
      const batchnorm::detail::Inputs<scalar, scalar>&, const batchnorm::detail::View<scalar>&);                       \
  extern_template void batchnorm::detail::differentiate_add(                                                           \
      batchnorm::detail::Layer<scalar, __VA_ARGS__>&, const batchnorm::detail::AnyDevice&,                             \
      const batchnorm::detail::KnownOfSum<scalar, __VA_ARGS__>&, const batchnorm::detail::TwoOutputs<scalar, scalar>&, \
      const batchnorm::BackwardOptions<batchnorm::StatisticOf<scalar>>&)
