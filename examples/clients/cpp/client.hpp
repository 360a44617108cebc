// Pictures as PPM files, which need no library, and what an exported model says of itself.

#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  std::size_t height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  // red, green, blue, pixel by pixel
};

inline Picture read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  std::size_t numbers[3] = {};  // width, height, the value of white
  file >> kind;
  for (std::size_t& number : numbers) {
    while (file && (file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    file >> number;
  }
  file.get();
  if (!file || kind != "P6" || numbers[2] != 255 || numbers[0] == 0 || numbers[1] > 500'000'000 / numbers[0]) {
    throw std::runtime_error(path + " is no PPM file of 8 bits (P6), or too large a one");
  }
  Picture made{numbers[1], numbers[0], std::vector<std::uint8_t>(3 * numbers[0] * numbers[1])};
  if (!file.read(reinterpret_cast<char*>(made.pixels.data()), made.pixels.size())) {
    throw std::runtime_error(path + " is cut short");
  }
  return made;
}

inline void write_ppm(const std::string& path, const Picture& picture) {
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << picture.width << " " << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(picture.pixels.data()), picture.pixels.size());
  if (!file.flush()) throw std::runtime_error(path + " could not be written");
}

// The bands one after the other, as the model takes them.
inline std::vector<std::uint8_t> planes(const Picture& picture) {
  const std::size_t size = picture.height * picture.width;
  std::vector<std::uint8_t> made(3 * size);
  for (std::size_t pixel = 0; pixel < size; ++pixel) {
    for (std::size_t band = 0; band < 3; ++band) made[band * size + pixel] = picture.pixels[3 * pixel + band];
  }
  return made;
}

// The strings of a list in JSON.
inline std::vector<std::string> json_strings(const std::string& text) {
  std::vector<std::string> found;
  for (std::size_t at = text.find('"'); at < text.size(); at = text.find('"', at + 1)) {
    std::string& word = found.emplace_back();
    while (text.at(++at) != '"') {
      if (text[at] != '\\') {
        word += text[at];
      } else if (text.at(++at) == 'u') {  // one of two to four bytes in UTF-8
        std::uint32_t code = std::stoul(text.substr(at + 1, 4), nullptr, 16);
        at += 4;
        if (code >> 10 == 0x36) {  // the first half of a pair
          code = 0x10000 + ((code & 0x3ff) << 10) + (std::stoul(text.substr(at + 3, 4), nullptr, 16) & 0x3ff);
          at += 6;
        }
        const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        static constexpr int first[] = {0, 0xc0, 0xe0, 0xf0};
        word += static_cast<char>(first[more] | code >> 6 * more);
        for (int left = more - 1; left >= 0; --left) word += static_cast<char>(0x80 | (code >> 6 * left & 0x3f));
      } else {
        const std::size_t control = std::string("bfnrt").find(text[at]);
        word += control == std::string::npos ? text[at] : "\b\f\n\r\t"[control];
      }
    }
  }
  return found;
}

// The colors of a list of lists of three numbers in JSON.
inline std::vector<std::array<std::uint8_t, 3>> json_colors(const std::string& text) {
  std::vector<std::array<std::uint8_t, 3>> found;
  std::size_t numbers = 0;
  for (std::size_t at = text.find_first_of("0123456789"); at < text.size(); ++numbers) {
    std::size_t length = 0;
    if (numbers % 3 == 0) found.emplace_back();
    found.back()[numbers % 3] = static_cast<std::uint8_t>(std::stoi(text.substr(at), &length));
    at = text.find_first_of("0123456789", at + length);
  }
  return found;
}

// Refuse a model of other input. `input` and `normalization` are what its metadata says.
inline void check_input(const std::string& model, const std::string& input, const std::string& normalization) {
  if (normalization != "inside" || input.rfind("RGB", 0) != 0) {
    throw std::runtime_error(model + " takes " + input + "; this program gives RGB images as they are");
  }
}

// Write the color of the class of each pixel, of logits (classes, height, width), and print the share of each class.
inline void write_result(const std::string& path, Picture picture, const float* logits,
                         const std::vector<std::string>& classes,
                         const std::vector<std::array<std::uint8_t, 3>>& palette) {
  const std::size_t size = picture.height * picture.width;
  std::vector<std::size_t> counts(classes.size());
  for (std::size_t pixel = 0; pixel < size; ++pixel) {
    std::size_t best = 0;
    for (std::size_t id = 1; id < classes.size(); ++id) {
      if (logits[id * size + pixel] > logits[best * size + pixel]) best = id;
    }
    ++counts[best];
    for (std::size_t band = 0; band < 3; ++band) picture.pixels[3 * pixel + band] = palette.at(best)[band];
  }
  write_ppm(path, picture);
  for (std::size_t id = 0; id < classes.size(); ++id) {
    std::printf("%s: %.2f %%\n", classes[id].c_str(), 100.0 * counts[id] / size);
  }
}

// Run a program of three arguments, and say what went wrong.
template <typename Program>
int run(int count, char** given, Program program) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s MODEL photo.ppm result.ppm\n", given[0]);
    return 2;
  }
  try {
    program(std::string(given[1]), std::string(given[2]), std::string(given[3]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
