// Window attention with its weights, ready for kernels.
#pragma once
#include "configuration.h"
#include "kernels.h"
#include "weights.h"

namespace escsr {

struct WindowAttentionWeights {
    Buffer<float> project_weight, project_bias, bias, query_factors, key_factors;
    Buffer<float> output_weight, output_bias;  // (heads * head_dim padded, C), (C,): the output projection
    // Of the gate; empty where there is none.
    Buffer<float> gate_norm_gain, gate_norm_bias, gate_depthwise_weight, gate_depthwise_bias, gate_pointwise_weight,
        gate_pointwise_bias;
    int64_t window = 0, heads = 0, head_dim = 0, rank = 0, bias_step = 0, dim = 0, channels = 0;
    bool normalises = false, has_gate = false;

    // name: of the module, as "blocks.0.attention"; norm: of the LayerNorm before it, as "blocks.0.norm_attention",
    // or null where it gets the features as they are.
    bool prepare(const Configuration& configuration, const Tensors& tensors, const char* name, const char* norm,
                 int64_t lanes, Failure& failure);
    // All but the maps.
    AttentionTask attention_task(Map features, Map attended) const;
    GateTask gate_task(Map features, Map attended) const;
    // Channels of the map of attended values, padded.
    int64_t attended_channels(int64_t lanes) const { return round_up(heads * head_dim, lanes); }
};

}  // namespace escsr
