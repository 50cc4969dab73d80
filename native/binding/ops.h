// Single ops over typed arrays: k-means, residual quantization, LoRA products.
#pragma once

#include <napi.h>

namespace collimate::binding {

// Each returns a promise and computes on a thread of the library's pool; arrays are copied in.
Napi::Value kmeans_op(const Napi::CallbackInfo& info);
Napi::Value residual_quantize_op(const Napi::CallbackInfo& info);
Napi::Value residual_encode_op(const Napi::CallbackInfo& info);
Napi::Value lora_forward_op(const Napi::CallbackInfo& info);
Napi::Value lora_backward_op(const Napi::CallbackInfo& info);

}  // namespace collimate::binding
