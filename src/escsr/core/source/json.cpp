#include "json.h"

namespace escsr {

namespace {

bool is_digit(int character) { return character >= '0' && character <= '9'; }
bool is_container(int character) { return character == '{' || character == '['; }

int hexadecimal(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    const int letter = (digit | 32) - 'a';
    return letter >= 0 && letter < 6 ? 10 + letter : -1;
}

uint32_t four_digits(const char* text) {
    uint32_t unit = 0;
    for (int i = 0; i < 4; ++i) unit = unit << 4 | static_cast<uint32_t>(hexadecimal(text[i]));
    return unit;
}

int encode_utf8(uint32_t point, char* to) {
    if (point < 0x80) {
        to[0] = static_cast<char>(point);
        return 1;
    }
    const int length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    const uint32_t marks[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = length - 1; i > 0; --i, point >>= 6) to[i] = static_cast<char>(0x80 | (point & 0x3f));
    to[0] = static_cast<char>(marks[length] | point);
    return length;
}

// One character of a string that read_string has found right: its bytes, at most 4, to `to`.
int decode_character(const char*& from, char* to) {
    if (*from != '\\') {
        *to = *from++;
        return 1;
    }
    const char kind = from[1];
    from += 2;
    if (kind != 'u') {
        const char *escapes = "bfnrt", *meanings = "\b\f\n\r\t";
        const char* found = strchr(escapes, kind);
        *to = found ? meanings[found - escapes] : kind;
        return 1;
    }
    uint32_t point = four_digits(from);
    from += 4;
    if (point >= 0xd800 && point < 0xdc00) {  // the first half of a pair
        point = 0x10000 + ((point & 0x3ff) << 10 | (four_digits(from + 2) & 0x3ff));
        from += 6;
    }
    return encode_utf8(point, to);
}

// digits * 10^exponent. For numbers as programs write them, with up to 17 digits and not far from 1, it is the nearest
// one: the error of each step is added at the end.
double decimal(int64_t digits, int64_t exponent) {
    const double high = static_cast<double>(digits);
    const double low = static_cast<double>(digits - static_cast<int64_t>(high));
    double power = 1;  // exact up to 10^22
    for (int64_t i = least<int64_t>(exponent < 0 ? -exponent : exponent, 400); i > 0; --i) power *= 10;
    if (power > 1e22) return exponent < 0 ? high / power : high * power;
    if (exponent < 0) {
        const double quotient = high / power;
        return quotient + (fma(-quotient, power, high) + low) / power;
    }
    const double product = high * power;
    return product + (fma(high, power, -product) + low * power);
}

}  // namespace

bool JsonValue::is(const char* expected) const {
    if (kind != JsonKind::string) return false;
    const char* from = text;
    while (from < text + length) {
        char bytes[4];
        const int count = decode_character(from, bytes);
        for (int i = 0; i < count; ++i)
            if (*expected++ != bytes[i]) return false;  // no string holds a zero, so this ends with `expected`
    }
    return *expected == 0;
}

bool JsonValue::as_integer(int64_t& value) const {
    if (kind != JsonKind::number) return false;
    const bool is_negative = text[0] == '-';
    value = 0;
    for (int64_t i = is_negative; i < length; ++i) {
        if (!is_digit(text[i])) return false;
        const int64_t digit = text[i] - '0';
        if (value > (INT64_MAX - digit) / 10) return false;
        value = 10 * value + digit;
    }
    if (is_negative) value = -value;
    return true;
}

bool JsonValue::as_number(double& value) const {
    if (kind != JsonKind::number) return false;
    const bool is_negative = text[0] == '-';
    int64_t digits = 0, exponent = 0, i = is_negative;
    bool is_fraction = false;
    for (; i < length && (is_digit(text[i]) || text[i] == '.'); ++i) {
        if (text[i] == '.') {
            is_fraction = true;
            continue;
        }
        const bool has_room = digits < 100000000000000000;
        if (has_room) digits = 10 * digits + (text[i] - '0');
        exponent += (has_room ? 0 : 1) - (is_fraction ? 1 : 0);
    }
    if (i < length) {  // e, E
        const bool is_small = text[++i] == '-';
        if (!is_digit(text[i])) ++i;
        int64_t written = 0;
        for (; i < length; ++i) written = least<int64_t>(10 * written + text[i] - '0', 1 << 30);
        exponent += is_small ? -written : written;
    }
    value = digits ? decimal(digits, exponent) : 0;
    if (is_negative) value = -value;
    return true;
}

bool JsonValue::as_boolean(bool& value) const {
    if (kind != JsonKind::boolean) return false;
    value = text[0] == 't';
    return true;
}

bool JsonValue::decode(Buffer<char>& characters, Failure& failure) const {
    // An escape is never shorter than what it stands for.
    if (!characters.allocate(length + 1, failure)) return false;
    char* to = characters.data();
    for (const char* from = text; from < text + length;) to += decode_character(from, to);
    *to = 0;
    return true;
}

bool JsonReader::fail(const char* problem) {
    if (!problem_) problem_ = problem;
    return false;
}

void JsonReader::skip_spaces() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++place_;
}

bool JsonReader::enter(JsonKind kind) {
    if (has_failed()) return false;
    skip_spaces();
    if (peek() != (kind == JsonKind::object ? '{' : '['))
        return fail(kind == JsonKind::object ? "an object is expected" : "an array is expected");
    if (depth_ == MOST_DEPTH) return fail("it is nested too deeply");
    ++place_;
    open_[depth_++] = kind;
    is_first_ = true;
    return true;
}

bool JsonReader::next_item(char end, const char* unended) {
    if (has_failed()) return false;
    skip_spaces();
    if (peek() == end) {
        ++place_;
        --depth_;
        is_first_ = false;
        return false;
    }
    if (!is_first_) {
        if (peek() != ',') return fail(unended);
        ++place_;
        skip_spaces();
    }
    is_first_ = false;
    return true;
}

bool JsonReader::next_member(JsonValue& name) {
    if (!next_item('}', "a comma or the end of an object is expected")) return false;
    if (peek() != '"') return fail("a name in quotes is expected");
    if (!read_string(name)) return false;
    skip_spaces();
    if (peek() != ':') return fail("a colon is expected");
    ++place_;
    return true;
}

bool JsonReader::next_element() { return next_item(']', "a comma or the end of an array is expected"); }

bool JsonReader::read(JsonValue& value) {
    if (has_failed()) return false;
    skip_spaces();
    if (!is_container(peek())) return read_scalar(value);
    const int64_t start = place_;
    const int32_t depth = depth_;
    const JsonKind kind = peek() == '{' ? JsonKind::object : JsonKind::array;
    if (!enter(kind)) return false;
    while (depth_ > depth) {
        JsonValue inner;
        const bool has_more = open_[depth_ - 1] == JsonKind::object ? next_member(inner) : next_element();
        if (has_more) {
            skip_spaces();
            if (is_container(peek())) {
                enter(peek() == '{' ? JsonKind::object : JsonKind::array);
            } else {
                read_scalar(inner);
            }
        }
        if (has_failed()) return false;
    }
    value.kind = kind, value.text = text_ + start, value.length = place_ - start;
    return true;
}

bool JsonReader::read_scalar(JsonValue& value) {
    if (peek() == '"') return read_string(value);
    return peek() == '-' || is_digit(peek()) ? read_number(value) : read_word(value);
}

bool JsonReader::finish() {
    if (has_failed()) return false;
    skip_spaces();
    return place_ == length_ || fail("something follows the end");
}

bool JsonReader::read_string(JsonValue& value) {
    const int64_t start = ++place_;
    while (peek() != '"') {
        const int character = peek();
        if (character < 0) return fail("a string does not end");
        if (character < 0x20) return fail("a control character is in a string");
        if (character == '\\' ? !read_escape() : !read_utf8()) return false;
    }
    value.kind = JsonKind::string, value.text = text_ + start, value.length = place_ - start;
    ++place_;
    return true;
}

bool JsonReader::read_escape() {
    ++place_;
    const int kind = peek();
    ++place_;
    if (kind != 'u') return (kind > 0 && strchr("\"\\/bfnrt", kind)) || fail("an unknown escape is in a string");
    uint32_t unit, second;
    if (!read_four_digits(unit)) return false;
    if (unit == 0) return fail("a zero is in a string");
    if (unit < 0xd800 || unit > 0xdfff) return true;
    if (unit > 0xdbff || peek() != '\\') return fail("half a pair of surrogates is in a string");
    ++place_;
    if (peek() != 'u') return fail("half a pair of surrogates is in a string");
    ++place_;
    if (!read_four_digits(second)) return false;
    return (second >= 0xdc00 && second <= 0xdfff) || fail("half a pair of surrogates is in a string");
}

bool JsonReader::read_four_digits(uint32_t& unit) {
    for (int64_t i = place_; i < place_ + 4; ++i)
        if (i >= length_ || hexadecimal(text_[i]) < 0) return fail("an escape in a string lacks digits");
    unit = four_digits(text_ + place_);
    place_ += 4;
    return true;
}

// One character; neither longer than it need be, nor half a pair, nor beyond the last.
bool JsonReader::read_utf8() {
    const uint32_t first = static_cast<uint32_t>(peek());
    ++place_;
    if (first < 0x80) return true;
    const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4) return fail("a string is not in UTF-8");
    uint32_t point = first & (0x3fu >> more);
    for (int i = 0; i < more; ++i, ++place_) {
        const int next = peek();
        if (next < 0x80 || next > 0xbf) return fail("a string is not in UTF-8");
        point = point << 6 | (static_cast<uint32_t>(next) & 0x3f);
    }
    const uint32_t smallest[4] = {0, 0x80, 0x800, 0x10000};
    const bool is_right = point >= smallest[more] && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
    return is_right || fail("a string is not in UTF-8");
}

bool JsonReader::read_number(JsonValue& value) {
    const int64_t start = place_;
    if (peek() == '-') ++place_;
    if (peek() == '0') {
        ++place_;
    } else if (!read_digits()) {
        return false;
    }
    if (peek() == '.') {
        ++place_;
        if (!read_digits()) return false;
    }
    if (peek() == 'e' || peek() == 'E') {
        ++place_;
        if (peek() == '+' || peek() == '-') ++place_;
        if (!read_digits()) return false;
    }
    value.kind = JsonKind::number, value.text = text_ + start, value.length = place_ - start;
    return true;
}

bool JsonReader::read_digits() {
    if (!is_digit(peek())) return fail("a digit is expected");
    while (is_digit(peek())) ++place_;
    return true;
}

bool JsonReader::read_word(JsonValue& value) {
    static const struct {
        const char* text;
        int64_t length;
        JsonKind kind;
    } words[] = {{"true", 4, JsonKind::boolean}, {"false", 5, JsonKind::boolean}, {"null", 4, JsonKind::null}};
    for (const auto& word : words) {
        if (length_ - place_ < word.length || memcmp(text_ + place_, word.text, static_cast<size_t>(word.length)) != 0)
            continue;
        value.kind = word.kind, value.text = text_ + place_, value.length = word.length;
        place_ += word.length;
        return true;
    }
    return fail("a value is expected");
}

}  // namespace escsr
