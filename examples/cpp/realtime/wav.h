// Sound in WAV files: 16-bit and 24-bit PCM, 32-bit float.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wav {

enum class Format { pcm16, pcm24, float32 };

struct Sound {
  int rate = 48000;  // samples a second
  int channels = 0;
  std::int64_t frames = 0;     // samples of each channel
  std::vector<float> samples;  // channel after channel; full scale is ±1
  Format format = Format::float32;
};

// Both return what is wrong, as a sentence; nothing where all is well. A file that is cut short, or that holds a sample
// that is not a number, is refused: a filter would never forget it.
std::string read(const std::string& path, Sound&);
std::string write(const std::string& path, const Sound&);  // PCM beyond full scale is cut off

}  // namespace wav
