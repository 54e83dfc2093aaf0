// An equaliser over a sound, block after block, as the audio thread of a host calls a plug-in: how long a block takes,
// that it is what filtering the sound at once gives, and that nothing is allocated meanwhile. See README.md.
#include <sys/syscall.h>
#include <torch_iir/sosfilt.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <limits>
#include <new>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "allocations.h"
#include "equaliser.h"
#include "strict.h"
#include "thread_pool.h"
#include "wav.h"

namespace {

using torch_iir::Status;

constexpr int failure = 1, wrong_usage = 2;  // exit codes

constexpr const char* usage =
    "usage: realtime [SOUND.wav] [options]\n"
    "  --channels N   of the sound that is made where no file is given (2)\n"
    "  --seconds N    its length (10)\n"
    "  --sections N   bands of the equaliser (8)\n"
    "  --block N      samples of a block (64)\n"
    "  --turns N      how often a knob is turned (8)\n"
    "  --threads N    for a run's channels (1)\n"
    "  --save FILE    writes the equalised sound\n"
    "  --strict       plays on where every system call is deadly\n"
    "  --plant WHAT   does on the audio thread what it must not: system-call, with --strict; or allocates and frees\n";

struct Options {
  std::string sound, save;
  allocations::Plant plant = nullptr;
  int channels = 2, seconds = 10, sections = 8, block = 64, turns = 8, threads = 1;
  bool strict = false, plant_system_call = false;
};

int wrong(const std::string& sentence, int code = wrong_usage) {
  std::fprintf(stderr, "realtime: %s\n", sentence.c_str());
  return code;
}

// What is wrong with the arguments; nothing where all is well.
std::string parse(int count, char** arguments, Options& options) {
  struct Number {
    const char* name;
    int Options::* value;
    int least, most;
  };
  const Number numbers[] = {
      {"--channels", &Options::channels, 1, 1024}, {"--seconds", &Options::seconds, 1, 3600},
      {"--sections", &Options::sections, 1, 256},  {"--block", &Options::block, 1, 1 << 20},
      {"--turns", &Options::turns, 0, 1'000'000},  {"--threads", &Options::threads, 1, 256},
  };
  bool shape_given = false;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--strict") {
      options.strict = true;
      continue;
    }
    if (!name.starts_with("--")) {
      if (!options.sound.empty()) return "one sound at a time";
      options.sound = name;
      continue;
    }
    if (i + 1 == count) return name + ": unknown, or lacks its value";
    const std::string value = arguments[++i];
    const auto* const number = std::find_if(std::begin(numbers), std::end(numbers),
                                            [&](const Number& candidate) { return name == candidate.name; });
    if (number != std::end(numbers)) {
      int& target = options.*number->value;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), target);
      if (error != std::errc() || *end != '\0' || target < number->least || target > number->most)
        return name + " must be a number from " + std::to_string(number->least) + " to " +
               std::to_string(number->most) + ", not " + value;
      shape_given |= name == "--channels" || name == "--seconds";
    } else if (name == "--save") {
      options.save = value;
    } else if (name == "--plant") {
      options.plant_system_call = value == "system-call";
      options.plant = allocations::find_plant(value);
      if (options.plant == nullptr && !options.plant_system_call)
        return "--plant must be system-call, " + std::string(allocations::plants) + ", not " + value;
    } else {
      return "no option " + name;
    }
  }
  if (shape_given && !options.sound.empty()) return "--channels and --seconds are those of the file";
  if (options.strict && options.threads > 1) return "--strict: waking a thread is a system call; without --threads";
  if (options.plant_system_call && !options.strict) return "--plant system-call: it takes --strict to notice";
  return {};
}

// A rising sine from 20 Hz on, and noise; every channel another noise.
wav::Sound made_sound(const Options& options) {
  wav::Sound sound;
  sound.channels = options.channels;
  sound.frames = std::int64_t{sound.rate} * options.seconds;
  sound.samples.resize(sound.channels * sound.frames);
  std::minstd_rand generator(1234);
  std::uniform_real_distribution<float> noise(-0.1F, 0.1F);
  const double octaves = std::log(0.4 * sound.rate / 20);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(sound.samples.size()); ++i) {
    const double t = static_cast<double>(i % sound.frames) / static_cast<double>(sound.frames);
    const double turns = 20 * options.seconds * std::expm1(octaves * t) / octaves;
    sound.samples[i] = static_cast<float>(0.25 * std::sin(2 * std::numbers::pi * turns)) + noise(generator);
  }
  return sound;
}

// A knob that is turned before some of the blocks, evenly over the sound.
struct Knob {
  std::int64_t blocks, turns;
  int band;

  std::int64_t turn(std::int64_t block) const noexcept { return block * (turns + 1) / blocks; }
  bool turned(std::int64_t block) const noexcept { return block > 0 && turn(block) != turn(block - 1); }
  double gain(std::int64_t block) const noexcept { return 12 * std::sin(static_cast<double>(turn(block))); }  // in dB
};

struct Playback {
  Status status = Status::ok;
  std::vector<std::int64_t> nanoseconds;  // of each block
  std::int64_t allocations = 0;
};

// What a host does: the same buffers again and again, filled, handed to the plug-in, and taken away. Here every second
// block is filtered in place.
class Host {
 public:
  Host(int channels, int block) : channels_(channels), inputs_(channels * block), outputs_(channels * block) {
    for (int channel = 0; channel < channels; ++channel) {
      in_.push_back(&inputs_[channel * block]);
      out_.push_back(&outputs_[channel * block]);
    }
  }

  Playback play(Equaliser& equaliser, const wav::Sound& sound, std::vector<float>& output, const Knob& knob,
                allocations::Plant plant) {
    const auto block_size = static_cast<std::int64_t>(inputs_.size()) / channels_;
    Playback playback;
    playback.nanoseconds.resize(knob.blocks);
    allocations::begin();
    for (std::int64_t block = 0; block < knob.blocks && playback.status == Status::ok; ++block) {
      const std::int64_t first = block * block_size, samples = std::min(block_size, sound.frames - first);
      const bool in_place = block % 2 != 0;
      for (int channel = 0; channel < channels_; ++channel)
        std::copy_n(&sound.samples[channel * sound.frames + first], samples, in_[channel]);
      if (knob.turned(block)) playback.status = equaliser.set_gain(knob.band, knob.gain(block));
      if (block == knob.blocks / 2 && plant != nullptr) plant();

      const auto start = std::chrono::steady_clock::now();
      const Status status = equaliser.process(in_.data(), in_place ? in_.data() : out_.data(), samples);
      const auto stop = std::chrono::steady_clock::now();

      playback.nanoseconds[block] = std::chrono::nanoseconds(stop - start).count();
      if (status != Status::ok) playback.status = status;
      for (int channel = 0; channel < channels_; ++channel)
        std::copy_n((in_place ? in_ : out_)[channel], samples, &output[channel * sound.frames + first]);
    }
    playback.allocations = allocations::end();
    return playback;
  }

  // Some blocks and turns more, without a clock.
  bool play_on(Equaliser& equaliser, int band) noexcept {
    const auto block_size = static_cast<std::int64_t>(inputs_.size()) / channels_;
    for (int block = 0; block < strict_blocks; ++block) {
      if (block % 16 == 0 && equaliser.set_gain(band, block % 7) != Status::ok) return false;
      if (equaliser.process(in_.data(), out_.data(), block_size) != Status::ok) return false;
    }
    return true;
  }

  static constexpr int strict_blocks = 1000;

 private:
  int channels_;
  std::vector<float> inputs_, outputs_;
  std::vector<float*> in_, out_;
};

// The sound filtered at once, or, where the knob was turned, from one turn to the next at once: by the one-shot
// function.
Status filter_at_once(const wav::Sound& sound, const std::vector<Band>& bands, const Knob& knob,
                      std::int64_t block_size, std::vector<float>& output) {
  std::vector<Section> sos(bands.size());
  std::transform(bands.begin(), bands.end(), sos.begin(), [&](const Band& band) { return design(band, sound.rate); });
  const auto sections = static_cast<std::int64_t>(sos.size());
  std::vector<double> state(sound.channels * sections * 2);  // at rest
  for (std::int64_t block = 0, next; block < knob.blocks; block = next) {
    for (next = block + 1; next < knob.blocks && !knob.turned(next);) ++next;
    if (knob.turned(block)) {
      Band band = bands[knob.band];
      band.gain = knob.gain(block);
      sos[knob.band] = design(band, sound.rate);
    }
    const std::int64_t first = block * block_size;
    torch_iir::SOSFilt<float> stretch;
    stretch.batch = {1, {sound.channels}};
    stretch.samples = std::min(next * block_size, sound.frames) - first;
    stretch.sections = static_cast<int>(sections);
    stretch.x = {&sound.samples[first], 1, {sound.frames}};
    stretch.sos = {{sos.data()->data()}, 6};
    stretch.zi = {{state.data(), 1, {2 * sections}}, 2};
    stretch.y = {&output[first], 1, {sound.frames}};
    stretch.zf = {{state.data(), 1, {2 * sections}}, 2};
    if (const Status status = torch_iir::sosfilt(stretch); status != Status::ok) return status;
  }
  return Status::ok;
}

void print_times(std::vector<std::int64_t> nanoseconds, double deadline) {
  std::sort(nanoseconds.begin(), nanoseconds.end());
  const auto print = [&](const char* name, double share) {
    const auto last = static_cast<double>(nanoseconds.size() - 1);
    const double microseconds = 1e-3 * static_cast<double>(nanoseconds[static_cast<std::size_t>(share * last)]);
    std::printf("%-4s %12.2f %14.3f %%\n", name, microseconds, 100 * microseconds / deadline);
  };
  std::printf("       µs a block   real-time load\n");
  print("p50", 0.5);
  print("p99", 0.99);
  print("max", 1);
}

int run(int count, char** arguments) {
  Options options;
  if (const std::string error = parse(count, arguments, options); !error.empty()) return wrong(error + "\n" + usage);
  wav::Sound sound;
  if (options.sound.empty()) {
    sound = made_sound(options);
  } else if (const std::string error = wav::read(options.sound, sound); !error.empty()) {
    return wrong(error);
  }

  // Before the sound begins: this may allocate, and take its time.
  ThreadPool pool(options.threads);
  const std::vector<Band> bands = default_bands(options.sections, sound.rate);
  torch_iir::PlanOptions plan_options;
  plan_options.block = options.block;
  if (options.threads > 1) plan_options.parallel_for = pool.hook();
  Equaliser equaliser;
  if (const Status status = equaliser.prepare(bands, sound.rate, sound.channels, plan_options); status != Status::ok)
    return wrong(torch_iir::message(status), failure);
  Host host(sound.channels, options.block);
  const Knob knob{(sound.frames + options.block - 1) / options.block, options.turns, options.sections / 2};
  wav::Sound output = sound;

  const Playback playback = host.play(equaliser, sound, output.samples, knob, options.plant);
  if (playback.status != Status::ok) return wrong(torch_iir::message(playback.status), failure);

  std::vector<float> expected(sound.samples.size());
  if (const Status status = filter_at_once(sound, bands, knob, options.block, expected); status != Status::ok)
    return wrong(torch_iir::message(status), failure);
  float difference = 0, largest = std::numeric_limits<float>::min();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference = std::max(difference, std::abs(output.samples[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
  }
  // Both are computed in double, then rounded.
  const bool same = difference <= largest * std::numeric_limits<float>::epsilon();

  const double deadline = 1e6 * options.block / sound.rate;
  std::printf("%d sections, %d channels, %lld blocks of %d samples at %d Hz: %.1f µs each. %s on %s, threads: %d\n\n",
              options.sections, sound.channels, static_cast<long long>(knob.blocks), options.block, sound.rate,
              deadline, torch_iir::algorithm_names[static_cast<int>(equaliser.plan().algorithm())],
              equaliser.plan().isa(), options.threads);
  print_times(playback.nanoseconds, deadline);
  std::printf("\nlargest difference from filtering at once: %.2g of the largest sample%s\n", difference / largest,
              same ? "" : ": TOO MUCH");
  std::printf("allocations on the audio path: %lld\n", static_cast<long long>(playback.allocations));
  bool kept = same && playback.allocations == 0;

  if (options.strict) {
    struct Strict {
      Host* host;
      Equaliser* equaliser;
      int band;
      bool plant;
    } strictly{&host, &equaliser, knob.band, options.plant_system_call};
    const strict::Verdict verdict = strict::run(
        [](void* argument) {
          const Strict& it = *static_cast<Strict*>(argument);
          if (it.plant) syscall(SYS_getpid);
          return it.host->play_on(*it.equaliser, it.band);
        },
        &strictly);
    const char* const says[] = {"none", "AT LEAST ONE", "none, but a run FAILED", "not known: no seccomp here"};
    std::printf("system calls in %d more blocks: %s\n", Host::strict_blocks, says[static_cast<int>(verdict)]);
    kept = kept && verdict == strict::Verdict::silent;
  }

  if (!options.save.empty()) {
    if (const std::string error = wav::write(options.save, output); !error.empty()) return wrong(error);
  }
  return kept ? 0 : failure;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count, arguments);
  } catch (const std::bad_alloc&) {
    return wrong("the sound is too large for the memory");
  }
}
