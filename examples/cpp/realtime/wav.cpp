#include "wav.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <string_view>
#include <system_error>

namespace wav {
namespace {

using Bytes = std::span<const unsigned char>;

constexpr unsigned tag_pcm = 1, tag_float = 3, tag_extensible = 0xfffe;  // the tag stands in the extension then
constexpr std::size_t fmt_size = 16, extended_fmt_size = 40, extended_tag_at = 24;

// Numbers lie with their lowest byte first, whatever the machine does.
std::uint32_t number(Bytes bytes, std::size_t at, int length) {
  std::uint32_t value = 0;
  for (int i = 0; i < length; ++i) value |= std::uint32_t{bytes[at + i]} << (8 * i);
  return value;
}

void append(std::vector<unsigned char>& bytes, std::uint32_t value, int length) {
  for (int i = 0; i < length; ++i) bytes.push_back(static_cast<unsigned char>(value >> (8 * i)));
}

void append(std::vector<unsigned char>& bytes, std::string_view text) {
  bytes.insert(bytes.end(), text.begin(), text.end());
}

bool is(Bytes bytes, std::size_t at, std::string_view name) { return std::memcmp(&bytes[at], name.data(), 4) == 0; }

int width(Format format) { return format == Format::pcm16 ? 2 : format == Format::pcm24 ? 3 : 4; }

float sample(Bytes bytes, std::size_t at, Format format) {
  const std::uint32_t bits = number(bytes, at, width(format));
  if (format == Format::pcm16) return static_cast<float>(static_cast<std::int16_t>(bits)) / 0x1p15F;
  if (format == Format::pcm24) return static_cast<float>(static_cast<std::int32_t>(bits << 8)) / 0x1p31F;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void append_sample(std::vector<unsigned char>& bytes, float value, Format format) {
  std::uint32_t bits;
  if (format == Format::float32) {
    std::memcpy(&bits, &value, sizeof bits);
  } else {
    const float scale = format == Format::pcm16 ? 0x1p15F : 0x1p23F;
    bits = static_cast<std::uint32_t>(std::lround(std::clamp(value * scale, -scale, scale - 1)));
  }
  append(bytes, bits, width(format));
}

// What the file holds, or what is wrong with it.
std::string parse(Bytes file, Sound& sound) {
  if (file.size() < 12 || !is(file, 0, "RIFF") || !is(file, 8, "WAVE")) return "not a WAV file";
  Bytes fmt, data;
  bool found = false;
  for (std::size_t at = 12; !found && at + 8 <= file.size();) {
    const std::size_t size = number(file, at + 4, 4);
    const std::size_t there = file.size() - at - 8;
    found = is(file, at, "data");
    if (size > there && (found || is(file, at, "fmt ")))
      return "cut short: a chunk of " + std::to_string(size) + " bytes has " + std::to_string(there);
    if (is(file, at, "fmt ")) fmt = file.subspan(at + 8, size);
    if (found) data = file.subspan(at + 8, size);
    at += 8 + std::min(size + size % 2, there);
  }
  if (!found) return "cut short: no data chunk";
  if (fmt.size() < fmt_size) return "no format chunk before its samples";

  unsigned tag = number(fmt, 0, 2);
  if (tag == tag_extensible && fmt.size() >= extended_fmt_size) tag = number(fmt, extended_tag_at, 2);
  const unsigned channels = number(fmt, 2, 2), rate = number(fmt, 4, 4), bits = number(fmt, 14, 2);
  if (tag == tag_pcm && bits == 16) {
    sound.format = Format::pcm16;
  } else if (tag == tag_pcm && bits == 24) {
    sound.format = Format::pcm24;
  } else if (tag == tag_float && bits == 32) {
    sound.format = Format::float32;
  } else {
    return "format " + std::to_string(tag) + " of " + std::to_string(bits) +
           " bits: only 16-bit and 24-bit PCM (1) and 32-bit float (3) are read";
  }
  const std::size_t frame = std::size_t{channels} * width(sound.format);
  if (channels == 0 || rate == 0 || rate > 10'000'000 || number(fmt, 12, 2) != frame)
    return "a format that contradicts itself: " + std::to_string(channels) + " channels at " + std::to_string(rate) +
           " Hz, frames of " + std::to_string(number(fmt, 12, 2)) + " bytes";
  if (data.empty()) return "no samples";
  if (data.size() % frame != 0) return "cut short: its last frame is not whole";

  sound.rate = static_cast<int>(rate);
  sound.channels = static_cast<int>(channels);
  sound.frames = static_cast<std::int64_t>(data.size() / frame);
  sound.samples.resize(data.size() / width(sound.format));
  auto next = sound.samples.begin();
  for (unsigned channel = 0; channel < channels; ++channel) {
    for (std::size_t at = channel * std::size_t(width(sound.format)); at < data.size(); at += frame) {
      *next = sample(data, at, sound.format);
      if (!std::isfinite(*next++)) return "sample " + std::to_string(at / frame) + " is not a number";
    }
  }
  return {};
}

}  // namespace

std::string read(const std::string& path, Sound& sound) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);  // of a directory: an error
  if (error) return path + ": " + error.message();
  std::vector<unsigned char> bytes(size);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size)))
    return path + ": cannot be read";
  const std::string wrong = parse(bytes, sound);
  return wrong.empty() ? wrong : path + ": " + wrong;
}

std::string write(const std::string& path, const Sound& sound) {
  const std::size_t frame = std::size_t(sound.channels) * width(sound.format);
  const std::size_t size = frame * sound.frames;
  if (size > std::numeric_limits<std::uint32_t>::max() - 64) return path + ": too long for a WAV file";
  std::vector<unsigned char> bytes;
  bytes.reserve(size + 64);
  append(bytes, "RIFF");
  append(bytes, static_cast<std::uint32_t>(36 + size + size % 2), 4);
  append(bytes, "WAVEfmt ");
  append(bytes, fmt_size, 4);
  append(bytes, sound.format == Format::float32 ? tag_float : tag_pcm, 2);
  append(bytes, sound.channels, 2);
  append(bytes, sound.rate, 4);
  append(bytes, static_cast<std::uint32_t>(frame * sound.rate), 4);
  append(bytes, static_cast<std::uint32_t>(frame), 2);
  append(bytes, 8 * width(sound.format), 2);
  append(bytes, "data");
  append(bytes, static_cast<std::uint32_t>(size), 4);
  for (std::int64_t t = 0; t < sound.frames; ++t)
    for (int channel = 0; channel < sound.channels; ++channel)
      append_sample(bytes, sound.samples[channel * sound.frames + t], sound.format);
  if (size % 2 != 0) bytes.push_back(0);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();
  return file ? std::string() : path + ": cannot be written";
}

}  // namespace wav
