#include "configuration.h"

#include <stdio.h>

#include "json.h"

namespace escsr {

namespace {

// ESCConfig has no upper limits. Below these, no product of a few of them leaves int64_t, and no network comes near.
constexpr int64_t MOST_CHANNELS = 1 << 16, MOST_SIDE = 1 << 10, MOST_LAYERS = 1 << 15, MOST_FREQUENCIES = 100;
constexpr int64_t MOST_HIDDEN = 1 << 20;

struct IntegerField {
    const char* name;
    int64_t Configuration::*value;
    int64_t at_least, most;
};

struct NumberField {
    const char* name;
    double Configuration::*value;
};

struct SwitchField {
    const char* name;
    bool Configuration::*value;
};

struct ChoiceField {
    const char* name;
    const char* const* allowed;  // in the order of the enumeration, and null
    void (*choose)(Configuration& configuration, int choice);
};

const IntegerField INTEGERS[] = {
    {"scale", &Configuration::scale, 1, MOST_SIDE},
    {"dim", &Configuration::dim, 1, MOST_CHANNELS},
    {"pdim", &Configuration::pdim, 1, MOST_CHANNELS},
    {"num_blocks", &Configuration::num_blocks, 1, MOST_LAYERS},
    {"num_conv_layers", &Configuration::num_conv_layers, 0, MOST_LAYERS},
    {"window_size", &Configuration::window_size, 1, MOST_SIDE},
    {"num_heads", &Configuration::num_heads, 1, MOST_CHANNELS},
    {"large_kernel_size", &Configuration::large_kernel_size, 1, MOST_SIDE},
    {"upsampler_dim", &Configuration::upsampler_dim, 1, MOST_CHANNELS},
    {"dysample_groups", &Configuration::dysample_groups, 1, MOST_CHANNELS},
    {"unshuffle", &Configuration::unshuffle, 1, MOST_SIDE},
    {"texture_dim", &Configuration::texture_dim, 1, MOST_CHANNELS},
    {"texture_mlp_dim", &Configuration::texture_mlp_dim, 1, MOST_CHANNELS},
    {"texture_mlp_layers", &Configuration::texture_mlp_layers, 0, MOST_LAYERS},
    {"position_rank", &Configuration::position_rank, 1, MOST_CHANNELS},
    {"position_hidden_dim", &Configuration::position_hidden_dim, 1, MOST_CHANNELS},
    {"position_frequencies", &Configuration::position_frequencies, 0, MOST_FREQUENCIES},
};

const NumberField NUMBERS[] = {
    {"expansion", &Configuration::expansion},
    {"first_expansion", &Configuration::first_expansion},
};

const SwitchField SWITCHES[] = {
    {"norm_in_conv_layers", &Configuration::norm_in_conv_layers},
    {"norm_before_last_conv", &Configuration::norm_before_last_conv},
    {"feature_skip", &Configuration::feature_skip},
    {"attention_gate", &Configuration::attention_gate},
    {"dynamic_kernel", &Configuration::dynamic_kernel},
    {"share_large_kernel", &Configuration::share_large_kernel},
};

const char* const IMAGE_SKIPS[] = {"nearest", "bicubic", "none", nullptr};
const char* const LARGE_KERNELS[] = {"dense", "decomposed", nullptr};
const char* const UPSAMPLERS[] = {"pixelshuffledirect", "pixelshuffle", "nearest+conv", "conv+nearest", "dysample",
                                  "lte", "transpose+conv", "lda", "pa_up", nullptr};
const char* const POSITION_BIASES[] = {"table", "implicit", nullptr};
const char* const MIXERS[] = {"window", "convolution", nullptr};

const ChoiceField CHOICES[] = {
    {"image_skip", IMAGE_SKIPS, [](Configuration& to, int choice) { to.image_skip = static_cast<ImageSkip>(choice); }},
    {"large_kernel", LARGE_KERNELS,
     [](Configuration& to, int choice) { to.large_kernel = static_cast<LargeKernel>(choice); }},
    {"upsampler", UPSAMPLERS, [](Configuration& to, int choice) { to.upsampler = static_cast<Upsampler>(choice); }},
    {"position_bias", POSITION_BIASES,
     [](Configuration& to, int choice) { to.position_bias = static_cast<PositionBias>(choice); }},
    {"first_mixer", MIXERS, [](Configuration& to, int choice) { to.first_mixer = static_cast<Mixer>(choice); }},
    {"layer_mixer", MIXERS, [](Configuration& to, int choice) { to.layer_mixer = static_cast<Mixer>(choice); }},
};

constexpr int NUM_INTEGERS = sizeof(INTEGERS) / sizeof(INTEGERS[0]);
constexpr int NUM_NUMBERS = sizeof(NUMBERS) / sizeof(NUMBERS[0]);
constexpr int NUM_SWITCHES = sizeof(SWITCHES) / sizeof(SWITCHES[0]);
constexpr int NUM_CHOICES = sizeof(CHOICES) / sizeof(CHOICES[0]);
constexpr int NUM_FIELDS = NUM_INTEGERS + NUM_NUMBERS + NUM_SWITCHES + NUM_CHOICES;

// The fields of all kinds one after another.
const char* name_of(int field) {
    if (field < NUM_INTEGERS) return INTEGERS[field].name;
    field -= NUM_INTEGERS;
    if (field < NUM_NUMBERS) return NUMBERS[field].name;
    field -= NUM_NUMBERS;
    return field < NUM_SWITCHES ? SWITCHES[field].name : CHOICES[field - NUM_SWITCHES].name;
}

int find_field(const JsonValue& name) {
    for (int field = 0; field < NUM_FIELDS; ++field)
        if (name.is(name_of(field))) return field;
    return -1;
}

// Words one after another, as far as there is room.
struct WordList {
    char text[480] = "";
    size_t length = 0, room;
    bool is_full = false;
    explicit WordList(size_t characters) : room(least(characters, sizeof(text) - 1)) {}
    void add(const char* word, size_t word_length) {
        if (is_full) return;
        is_full = length + word_length + 7 > room;  // 7: this comma, and another with the dots
        if (is_full) word = "...", word_length = 3;
        length += static_cast<size_t>(snprintf(text + length, sizeof(text) - length, "%s%.*s", length ? ", " : "",
                                               static_cast<int>(word_length), word));
    }
};

bool refuse_value(const char* name, const JsonValue& value, const char* wanted, Failure& failure) {
    const bool is_string = value.kind == JsonKind::string;
    return failure.set(ESCSR_INVALID_CONFIGURATION, "%s is %s%.*s%s; %s.", name, is_string ? "\"" : "",
                       static_cast<int>(least<int64_t>(value.length, 60)), value.text, is_string ? "\"" : "", wanted);
}

bool read_integer(const IntegerField& field, const JsonValue& value, Configuration& configuration, Failure& failure) {
    int64_t integer;
    char wanted[80];
    if (!value.as_integer(integer) || integer < field.at_least) {
        snprintf(wanted, sizeof(wanted), "it must be an integer of %d or more", static_cast<int>(field.at_least));
        return refuse_value(field.name, value, wanted, failure);
    }
    if (integer > field.most) {
        snprintf(wanted, sizeof(wanted), "this library runs networks with %d at most", static_cast<int>(field.most));
        return refuse_value(field.name, value, wanted, failure);
    }
    configuration.*field.value = integer;
    return true;
}

bool read_choice(const ChoiceField& field, const JsonValue& value, Configuration& configuration, Failure& failure) {
    WordList allowed(200);
    for (int choice = 0; field.allowed[choice]; ++choice) {
        if (value.is(field.allowed[choice])) {
            field.choose(configuration, choice);
            return true;
        }
        allowed.add(field.allowed[choice], strlen(field.allowed[choice]));
    }
    char wanted[256];
    snprintf(wanted, sizeof(wanted), "allowed are %.200s", allowed.text);
    return refuse_value(field.name, value, wanted, failure);
}

bool read_field(int field, const JsonValue& value, Configuration& configuration, Failure& failure) {
    if (field < NUM_INTEGERS) return read_integer(INTEGERS[field], value, configuration, failure);
    field -= NUM_INTEGERS;
    if (field < NUM_NUMBERS) {
        return value.as_number(configuration.*NUMBERS[field].value) ||
               refuse_value(NUMBERS[field].name, value, "it must be a number", failure);
    }
    field -= NUM_NUMBERS;
    if (field < NUM_SWITCHES) {
        return value.as_boolean(configuration.*SWITCHES[field].value) ||
               refuse_value(SWITCHES[field].name, value, "it must be true or false", failure);
    }
    return read_choice(CHOICES[field - NUM_SWITCHES], value, configuration, failure);
}

bool refuse_json(const JsonReader& reader, Failure& failure) {
    return failure.set(ESCSR_INVALID_CONFIGURATION, "The configuration is not in JSON: at byte %.0f %s.",
                       static_cast<double>(reader.place()), reader.problem());
}

// Before any value is looked at, since an unknown name tells more than a value that is out of range.
bool require_known_names(const char* json, int64_t length, Failure& failure) {
    JsonReader reader(json, length);
    JsonValue name, value;
    WordList unknown(100);
    bool is_there[NUM_FIELDS] = {};
    reader.enter(JsonKind::object);
    while (reader.next_member(name)) {
        const int field = find_field(name);
        if (field < 0) {
            unknown.add(name.text, static_cast<size_t>(least<int64_t>(name.length, 40)));
        } else if (is_there[field]) {
            return failure.set(ESCSR_INVALID_CONFIGURATION, "%s is twice in the configuration.", name_of(field));
        } else {
            is_there[field] = true;
        }
        reader.read(value);
    }
    if (!reader.finish()) return refuse_json(reader, failure);
    if (unknown.length == 0) return true;
    WordList known(sizeof(failure.message) - unknown.length - 60);
    for (int field = 0; field < NUM_FIELDS; ++field) known.add(name_of(field), strlen(name_of(field)));
    return failure.set(ESCSR_INVALID_CONFIGURATION, "Unknown in a network's configuration: %s. Known are %s.",
                       unknown.text, known.text);
}

bool is_power_of_two(int64_t value) { return value > 0 && (value & (value - 1)) == 0; }

bool require_expansion(const char* name, double expansion, int64_t dim, Failure& failure) {
    const double hidden = static_cast<double>(dim) * expansion;
    if (!(hidden >= 1))
        return failure.set(ESCSR_INVALID_CONFIGURATION,
                           "%s is %g; it must be a number of 1/%d or more, so that at least one hidden channel is "
                           "left.", name, expansion, static_cast<int>(dim));
    if (hidden > static_cast<double>(MOST_HIDDEN))
        return failure.set(ESCSR_INVALID_CONFIGURATION, "%s is %g; this library runs networks with %d hidden channels "
                           "at most.", name, expansion, static_cast<int>(MOST_HIDDEN));
    return true;
}

bool require_body(const Configuration& configuration, Failure& failure) {
    const int dim = static_cast<int>(configuration.dim), pdim = static_cast<int>(configuration.pdim);
    const int num_heads = static_cast<int>(configuration.num_heads);
    if (configuration.large_kernel_size % 2 == 0)
        return failure.set(ESCSR_INVALID_CONFIGURATION,
                           "large_kernel_size is %d; a kernel needs a centre, so give an odd number.",
                           static_cast<int>(configuration.large_kernel_size));
    if (pdim > dim)
        return failure.set(ESCSR_INVALID_CONFIGURATION,
                           "pdim is %d and dim is %d; at most dim channels can be convolved.", pdim, dim);
    if (dim % num_heads)
        return failure.set(ESCSR_INVALID_CONFIGURATION,
                           "dim is %d and num_heads is %d; choose a number of heads that divides dim.", dim, num_heads);
    return require_expansion("expansion", configuration.expansion, configuration.dim, failure) &&
           require_expansion("first_expansion", configuration.first_expansion, configuration.dim, failure);
}

// Only one upsampler adds the enlarged image, and only where its pixels did not become channels.
bool require_image_skip(const Configuration& configuration, const char* kind, Failure& failure) {
    if (configuration.image_skip == ImageSkip::none) return true;
    const char* skip = IMAGE_SKIPS[static_cast<int>(configuration.image_skip)];
    if (configuration.upsampler != Upsampler::pixelshuffledirect)
        return failure.set(ESCSR_INVALID_CONFIGURATION,
                           "image_skip is \"%s\" and upsampler is \"%s\"; only \"pixelshuffledirect\" adds the "
                           "enlarged image, so set image_skip to \"none\".", skip, kind);
    if (configuration.unshuffle != 1)
        return failure.set(ESCSR_INVALID_CONFIGURATION,
                           "image_skip is \"%s\" and unshuffle is %d; where pixels become channels no enlarged image "
                           "is added, so set image_skip to \"none\".", skip, static_cast<int>(configuration.unshuffle));
    return true;
}

bool refuse_scale(const char* kind, int64_t scale, const char* possible, Failure& failure) {
    return failure.set(ESCSR_INVALID_CONFIGURATION,
                       "upsampler is \"%s\" and enlarges the features by %d; it can by %s (for the same size, take "
                       "\"pixelshuffledirect\").", kind, static_cast<int>(scale), possible);
}

bool require_upsampler(const Configuration& configuration, Failure& failure) {
    const char* kind = UPSAMPLERS[static_cast<int>(configuration.upsampler)];
    const int64_t scale = configuration.inner_scale();
    const int dim = static_cast<int>(configuration.upsampler_dim);
    switch (configuration.upsampler) {
        case Upsampler::pixelshuffledirect:
            return true;
        case Upsampler::pixelshuffle:
        case Upsampler::nearest_conv:
        case Upsampler::conv_nearest:
        case Upsampler::pa_up:
            return scale == 3 || (scale > 1 && is_power_of_two(scale)) ||
                   refuse_scale(kind, scale, "3 and by powers of 2", failure);
        case Upsampler::transpose_conv:
            return (scale >= 2 && scale <= 4) || refuse_scale(kind, scale, "2, 3 and 4", failure);
        case Upsampler::lda:
            if (scale < 2) return refuse_scale(kind, scale, "2 and more", failure);
            return dim % 8 == 0 ||
                   failure.set(ESCSR_INVALID_CONFIGURATION,
                               "upsampler is \"lda\" and upsampler_dim is %d; a quarter of it is split into 2 groups, "
                               "so choose a multiple of 8.", dim);
        case Upsampler::dysample:
            return dim % configuration.dysample_groups == 0 ||
                   failure.set(ESCSR_INVALID_CONFIGURATION,
                               "dysample_groups is %d and upsampler_dim is %d; choose a number of groups that divides "
                               "it.", static_cast<int>(configuration.dysample_groups), dim);
        case Upsampler::lte:
            return (configuration.texture_dim % 2 == 0 && configuration.unshuffle == 1) ||
                   failure.set(ESCSR_INVALID_CONFIGURATION,
                               "upsampler is \"lte\" with texture_dim %d and unshuffle %d; texture_dim must be even "
                               "and unshuffle 1.", static_cast<int>(configuration.texture_dim),
                               static_cast<int>(configuration.unshuffle));
    }
    return true;
}

}  // namespace

bool Configuration::parse(const char* json, int64_t length, Failure& failure) {
    if (!require_known_names(json, length, failure)) return false;
    *this = Configuration();
    JsonReader reader(json, length);
    JsonValue name, value;
    reader.enter(JsonKind::object);
    while (reader.next_member(name))
        if (!reader.read(value) || !read_field(find_field(name), value, *this, failure)) return false;
    const char* kind = UPSAMPLERS[static_cast<int>(upsampler)];
    return require_body(*this, failure) && require_image_skip(*this, kind, failure) &&
           require_upsampler(*this, failure);
}

}  // namespace escsr
