/* Segment an image in C++ with a model that `rmiseg export --format torch-aoti` wrote.

       pip install torch           # which has the headers and the libraries for C++ in it
       TORCH=$(python -c "import torch; print(*torch.__path__)")
       g++ -std=c++20 -O2 segment_torch.cpp -o segment -I$TORCH/include \
           -L$TORCH/lib -ltorch -ltorch_cpu -lc10 -Wl,-rpath,$TORCH/lib
       ./segment model-aoti.pt2 photo.ppm result.ppm

   The names and colors of the classes, and what the input is, are in the file of the model. */

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "client.hpp"

int main(int count, char** given) {
  return run(count, given, [](const std::string& file, const std::string& image, const std::string& result) {
    const c10::InferenceMode without_gradients;
    torch::inductor::AOTIModelPackageLoader model(file);
    auto about = model.get_metadata();
    check_input(file, about["input"], about["normalization"]);

    const Picture picture = read_ppm(image);
    std::vector<std::uint8_t> input = planes(picture);
    const auto height = static_cast<std::int64_t>(picture.height), width = static_cast<std::int64_t>(picture.width);
    const at::Tensor images = at::from_blob(input.data(), {1, 3, height, width}, at::kByte);
    const at::Tensor logits = model.run({images})[0].contiguous();
    write_result(result, picture, logits.data_ptr<float>(), json_strings(about["classes"]),
                 json_colors(about["palette"]));
  });
}
