// A strict reader of JSON (RFC 8259) that gives one value after another and allocates nothing.
//
//     JsonReader reader(text, length);
//     JsonValue name, value;
//     reader.enter(JsonKind::object);
//     while (reader.next_member(name)) reader.read(value);
//     if (!reader.finish()) puts(reader.problem());
#pragma once
#include "base.h"

namespace escsr {

enum class JsonKind { none, object, array, string, number, boolean, null };

// A value as it is written; it lives as long as the text does.
struct JsonValue {
    JsonKind kind = JsonKind::none;
    const char* text = nullptr;  // of a string, what is between the quotes
    int64_t length = 0;

    // Whether it is this string.
    bool is(const char* expected) const;
    // Of a number without a fraction and an exponent that int64_t can hold.
    bool as_integer(int64_t& value) const;
    // Of a number; infinite where float64 cannot hold it.
    bool as_number(double& value) const;
    bool as_boolean(bool& value) const;
    // The characters of a string, terminated by a zero.
    bool decode(Buffer<char>& characters, Failure& failure) const;
};

class JsonReader {
   public:
    JsonReader(const char* text, int64_t length) : text_(text), length_(length) {}

    // The next value is an object or an array: its members or elements come next.
    bool enter(JsonKind kind);
    // Whether there is one more, whose value comes next. False at the end, and when something is wrong.
    bool next_member(JsonValue& name);
    bool next_element();
    // The next value, whole; the text of an object or array is not taken apart but checked.
    bool read(JsonValue& value);
    // Whether the text was one value, and right.
    bool finish();

    bool has_failed() const { return problem_ != nullptr; }
    // What is wrong, and at which byte of the text.
    const char* problem() const { return problem_ ? problem_ : "nothing is wrong"; }
    int64_t place() const { return place_; }

   private:
    static constexpr int32_t MOST_DEPTH = 32;

    bool fail(const char* problem);
    void skip_spaces();
    int peek() const { return place_ < length_ ? static_cast<unsigned char>(text_[place_]) : -1; }
    bool next_item(char end, const char* unended);
    bool read_scalar(JsonValue& value);
    bool read_string(JsonValue& value);
    bool read_escape();
    bool read_four_digits(uint32_t& unit);
    bool read_utf8();
    bool read_number(JsonValue& value);
    bool read_digits();
    bool read_word(JsonValue& value);

    const char* text_;
    int64_t length_, place_ = 0;
    int32_t depth_ = 0;
    JsonKind open_[MOST_DEPTH] = {};
    bool is_first_ = false;  // whether nothing of the innermost object or array was read yet
    const char* problem_ = nullptr;
};

}  // namespace escsr
