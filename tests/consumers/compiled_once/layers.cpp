#include "layers.hpp"

template <class V>
BATCHNORM_INLINE void Ramp::apply(V& v, const V* constants) {
  batchnorm::Relu::apply(v, constants);
}
template <class V>
BATCHNORM_INLINE void Ramp::differentiate(const V& v, V& g, const V* constants) {
  batchnorm::Relu::differentiate(v, g, constants);
}

BATCHNORM_LAYER(template, float, TwoSlopedRamp);
BATCHNORM_RESIDUAL_LAYER(template, float, TwoSlopedRamp);
BATCHNORM_RESIDUAL_LAYER(template, float, Ramp);
BATCHNORM_RESIDUAL_LAYER(template, float, batchnorm::Identity);
