/* Segment an image in C++ with a model that `rmiseg export --format openvino` wrote.

       pip install openvino        # which has the headers and the libraries for C++ in it
       OPENVINO=$(python -c "import openvino; print(*openvino.__path__)")
       g++ -std=c++17 -O2 segment_openvino.cpp -o segment -I$OPENVINO/include \
           $(ls $OPENVINO/libs/libopenvino.so*) -Wl,-rpath,$OPENVINO/libs
       ./segment model.xml photo.ppm result.ppm

   The names and colors of the classes, and what the input is, are in the file of the model. */

#include <openvino/openvino.hpp>

#include "client.hpp"

int main(int count, char** given) {
  return run(count, given, [](const std::string& file, const std::string& image, const std::string& result) {
    ov::Core core;
    const auto model = core.read_model(file);
    const auto about = [&](const char* name) { return model->get_rt_info<std::string>({"rmiseg", name}); };
    check_input(file, about("input"), about("normalization"));

    const Picture picture = read_ppm(image);
    std::vector<std::uint8_t> input = planes(picture);
    // Otherwise it computes in bfloat16 where the processor can, and a few pixels in a thousand get another class.
    auto request = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32)).create_infer_request();
    request.set_input_tensor(ov::Tensor(ov::element::u8, {1, 3, picture.height, picture.width}, input.data()));
    request.infer();
    write_result(result, picture, request.get_output_tensor().data<float>(), json_strings(about("classes")),
                 json_colors(about("palette")));
  });
}
