#!/usr/bin/python3
"""Writes golden.hpp: what PyTorch's BatchNorm1d, 2d and 3d answer, for golden_test.cpp to compare with.

Usage: ./make_golden.py > golden.hpp      (Debian: apt-get install python3-torch)
"""

import torch

RATE = 0.5  # of the gradient descent on gamma and beta between the steps; golden_test.cpp does the same

RUNS = [
    # name, module, dims, arguments
    ("table", torch.nn.BatchNorm1d, (8, 3), {}),
    ("sequence, cumulative", torch.nn.BatchNorm1d, (3, 2, 4), {"momentum": None}),
    ("image, epsilon and momentum", torch.nn.BatchNorm2d, (2, 3, 2, 3), {"eps": 1e-3, "momentum": 0.3}),
    ("volume, without gamma and beta", torch.nn.BatchNorm3d, (2, 2, 2, 1, 3), {"affine": False}),
]


def draw(dims):
    """Multiples of 1/64, the same numbers in float and double."""
    return torch.round(torch.randn(dims, dtype=torch.float64) * 64) / 64


def answers(layer, x, dy):
    """One forward and backward, then a step down the gradient."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(dy)
    results = {"y": y, "dx": x.grad}
    if layer.affine:
        results["dgamma"], results["dbeta"] = layer.weight.grad, layer.bias.grad
    results["running_mean"], results["running_var"] = layer.running_mean, layer.running_var
    results = {key: value.detach().clone() for key, value in results.items()}
    if layer.affine:
        with torch.no_grad():
            for parameter in (layer.weight, layer.bias):
                parameter -= RATE * parameter.grad
    return results


def braces(tensor):
    digits = 17 if tensor.dtype == torch.float64 else 9
    return "{" + ", ".join("%.*g" % (digits, value) for value in tensor.flatten().tolist()) + "}"


def outputs(results):
    return "{" + ",\n".join(".%s = %s" % (key, braces(value)) for key, value in results.items()) + "}"


def make(name, module, dims, arguments):
    channels = dims[1]
    gamma, beta = draw(channels), draw(channels)
    layers = []
    for dtype in (torch.float64, torch.float32):
        layer = module(channels, **arguments).to(dtype)
        if layer.affine:
            with torch.no_grad():
                layer.weight.copy_(gamma)
                layer.bias.copy_(beta)
        layers.append(layer)
    steps = []
    for is_training in (True, True, True, False):
        x, dy = draw(dims) * 2 + 1, draw(dims)
        for layer in layers:
            layer.train(is_training)
        in_double, in_float = (
            outputs(answers(layer, x.to(dtype), dy.to(dtype)))
            for layer, dtype in zip(layers, (torch.float64, torch.float32))
        )
        steps.append("{.x = %s,\n.dy = %s,\n.in_double = %s,\n.in_float = %s}" % (braces(x), braces(dy), in_double, in_float))
    momentum = arguments.get("momentum", 0.1)
    return "{.name = \"%s\", .dims = {%s}, .epsilon = %r, .average = %s, .affine = %s,\n.gamma = %s, .beta = %s,\n.steps = {%s}}" % (
        name,
        ", ".join(map(str, dims)),
        arguments.get("eps", 1e-5),
        "cumulative()" if momentum is None else "new_weight(%r)" % momentum,
        "Affine::scale_and_shift" if arguments.get("affine", True) else "Affine::none",
        braces(gamma),
        braces(beta),
        ",\n".join(steps),
    )


def main():
    torch.manual_seed(1)
    print("// Made by make_golden.py with PyTorch %s." % torch.__version__)
    print("// clang-format off")
    print('#pragma once\n\n#include "types.hpp"\n')
    print("namespace batchnorm::test::golden {\n")
    print("inline const std::vector<Run> runs = {\n%s};\n" % ",\n\n".join(make(*run) for run in RUNS))
    print("}  // namespace batchnorm::test::golden")


main()
