// A parametric equaliser as a plug-in holds it: made once, then a block at a time on the audio thread.
#pragma once

#include <torch_iir/sosfilt_plan.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

// A shelf or a peak, as in R. Bristow-Johnson's Audio EQ Cookbook.
struct Band {
  enum class Kind { low_shelf, peak, high_shelf };
  Kind kind = Kind::peak;
  double frequency = 1000;  // in Hz, below half the sample rate
  double gain = 0;          // in dB
  double Q = 1.4;
};

using Section = std::array<double, 6>;  // b0 b1 b2 a0 a1 a2

inline Section design(const Band& band, double rate) noexcept {
  const double w = 2 * std::numbers::pi * band.frequency / rate, alpha = std::sin(w) / (2 * band.Q);
  const double A = std::pow(10, band.gain / 40), root = 2 * std::sqrt(A) * alpha;
  const double side = band.kind == Band::Kind::high_shelf ? -1 : 1;  // that shelf is the low one, mirrored: z → −z
  const double c = side * std::cos(w);
  if (band.kind == Band::Kind::peak)
    return {1 + alpha * A, -2 * c, 1 - alpha * A, 1 + alpha / A, -2 * c, 1 - alpha / A};
  const double plus = A + 1 - (A - 1) * c, minus = A + 1 + (A - 1) * c;
  return {A * (plus + root), 2 * side * A * (A - 1 - (A + 1) * c), A * (plus - root),
          minus + root,      -2 * side * (A - 1 + (A + 1) * c),    minus - root};
}

// Shelves at both ends and peaks between them, evenly over the octaves from 60 Hz to 12 kHz, up and down in turns.
inline std::vector<Band> default_bands(int sections, double rate) {
  std::vector<Band> bands(sections);
  for (int i = 0; i < sections; ++i) {
    bands[i].frequency = std::min(sections == 1 ? 1000 : 60 * std::pow(200, i / (sections - 1.0)), 0.45 * rate);
    bands[i].gain = i % 2 == 0 ? 6 : -4;
  }
  if (sections > 1) {
    bands.front() = {Band::Kind::low_shelf, bands.front().frequency, bands.front().gain, 0.707};
    bands.back() = {Band::Kind::high_shelf, bands.back().frequency, bands.back().gain, 0.707};
  }
  return bands;
}

class Equaliser {
 public:
  // Before the sound begins: all that allocates.
  torch_iir::Status prepare(const std::vector<Band>& bands, double rate, int channels,
                            const torch_iir::PlanOptions& options) {
    bands_ = bands;
    rate_ = rate;
    sos_.resize(bands.size());
    std::transform(bands.begin(), bands.end(), sos_.begin(), [=](const Band& band) { return design(band, rate); });
    return plan_.make(coefficients(), {channels}, options);
  }

  // On the audio thread, between two blocks. A knob is moved on another thread: its position comes here by an atomic,
  // or by a queue without locks.
  torch_iir::Status set_gain(int band, double gain) noexcept {
    bands_[band].gain = gain;
    sos_[band] = design(bands_[band], rate_);
    return plan_.set_coefficients(coefficients());
  }

  // On the audio thread: a pointer for each channel; out may be in.
  torch_iir::Status process(const float* const* in, float* const* out, std::int64_t samples) noexcept {
    return plan_.run(in, out, samples);
  }

  const torch_iir::SOSFiltPlan<float>& plan() const noexcept { return plan_; }
  const std::vector<Section>& sos() const noexcept { return sos_; }

 private:
  torch_iir::View<const double> coefficients() const noexcept {
    return {sos_.data()->data(), {static_cast<std::int64_t>(sos_.size()), 6}};
  }

  std::vector<Band> bands_;
  std::vector<Section> sos_;
  double rate_ = 48000;
  torch_iir::SOSFiltPlan<float> plan_;
};
