#include "container.h"

#include <stdio.h>
#include <stdlib.h>

#include "json.h"
#include "sha256.h"

namespace escsr {

namespace {

constexpr uint64_t MOST_HEADER_BYTES = 1 << 24;
constexpr const char* FORMAT_VERSION = "1";

// One array as the header describes it.
struct Item {
    Buffer<char> name;
    const char* type = nullptr;
    Shape shape = {0, {}};
    int64_t begin = 0, end = 0;  // bytes after the header
};

// What escsr's files state about themselves, of which this library needs three.
struct Statements {
    JsonValue format, configuration, checksum;
};

struct StoredType {
    const char* name;        // as safetensors names it
    const char* torch_name;  // as the checksum does
    int64_t num_bytes;
};
const StoredType TYPES[] = {
    {"F32", "torch.float32", 4},
    {"F16", "torch.float16", 2},
    {"BF16", "torch.bfloat16", 2},
    {"F64", "torch.float64", 8},
};
constexpr const char* CONVERTER =
    "escsr's Python package converts such files: escsr.load_model reads them, escsr.weights.save_weights writes ours";

const StoredType* type_named(const char* name) {
    for (const StoredType& type : TYPES)
        if (strcmp(type.name, name) == 0) return &type;
    return nullptr;
}

bool refuse_header(const char* problem, Failure& failure) {
    return failure.set(ESCSR_INVALID_FILE, "The header of the file is damaged: %s. Download or copy it again.",
                       problem);
}

bool refuse_json(const JsonReader& reader, Failure& failure) {
    return failure.set(ESCSR_INVALID_FILE,
                       "The header of the file is damaged: at byte %.0f %s. Download or copy it again.",
                       static_cast<double>(reader.place()) + 8, reader.problem());
}

// Where the header's text lies.
bool find_header(const unsigned char* bytes, size_t num_bytes, int64_t& length, Failure& failure) {
    if (num_bytes >= 4 && memcmp(bytes, "PK\3\4", 4) == 0)
        return failure.set(ESCSR_INVALID_FILE,
                           "This is a zip file, as PyTorch writes them (.pth), and no weights file of escsr's. %s.",
                           CONVERTER);
    if (num_bytes < 10)
        return failure.set(ESCSR_INVALID_FILE, "The file has %d bytes; it is empty or truncated.",
                           static_cast<int>(num_bytes));
    uint64_t stated = 0;
    for (int i = 7; i >= 0; --i) stated = stated << 8 | bytes[i];
    if (bytes[8] != '{')
        return failure.set(ESCSR_INVALID_FILE, "The file is no safetensors file, or its beginning is damaged.");
    if (stated > MOST_HEADER_BYTES || stated > num_bytes - 8)
        return failure.set(ESCSR_INVALID_FILE,
                           "The file's header is said to have %.0f bytes, and the whole file has %.0f: it is truncated "
                           "or no safetensors file.", static_cast<double>(stated), static_cast<double>(num_bytes));
    length = static_cast<int64_t>(stated);
    return true;
}

// {"name": "text", ...}
bool read_statements(JsonReader& reader, Statements& statements, Failure& failure) {
    JsonValue name, value;
    reader.enter(JsonKind::object);
    while (reader.next_member(name)) {
        if (!reader.read(value)) break;
        JsonValue* wanted = name.is("escsr.format")   ? &statements.format
                            : name.is("escsr.config") ? &statements.configuration
                            : name.is("escsr.sha256") ? &statements.checksum
                                                      : nullptr;
        if (value.kind != JsonKind::string) return refuse_header("its metadata are not all text", failure);
        if (!wanted) continue;
        if (wanted->kind != JsonKind::none) return refuse_header("an entry of its metadata is there twice", failure);
        *wanted = value;
    }
    return true;
}

bool read_shape(JsonReader& reader, Item& item, Failure& failure) {
    JsonValue value;
    reader.enter(JsonKind::array);
    while (reader.next_element()) {
        int64_t side = 0;
        if (!reader.read(value)) break;
        if (item.shape.num_dimensions == MOST_DIMENSIONS)
            return failure.set(ESCSR_INVALID_FILE, "%.200s has more than %d dimensions; no network's array has.",
                               item.name.data(), static_cast<int>(MOST_DIMENSIONS));
        if (!value.as_integer(side) || side < 0)
            return failure.set(ESCSR_INVALID_FILE, "The shape of %.200s is damaged: it holds %.*s.", item.name.data(),
                               static_cast<int>(least<int64_t>(value.length, 40)), value.text);
        item.shape.sides[item.shape.num_dimensions++] = side;
    }
    return true;
}

bool read_offsets(JsonReader& reader, Item& item, Failure& failure) {
    JsonValue value;
    int64_t offsets[2] = {-1, -1};
    int count = 0;
    reader.enter(JsonKind::array);
    while (reader.next_element()) {
        if (!reader.read(value)) break;
        if (count < 2 && !value.as_integer(offsets[count])) break;
        ++count;
    }
    if (reader.has_failed()) return true;  // the caller tells
    item.begin = offsets[0], item.end = offsets[1];
    return (count == 2 && item.begin >= 0 && item.end >= item.begin) ||
           failure.set(ESCSR_INVALID_FILE, "The offsets of %.200s are damaged.", item.name.data());
}

bool read_type(JsonReader& reader, Item& item, Failure& failure) {
    JsonValue value;
    if (!reader.read(value)) return true;
    for (const StoredType& type : TYPES)
        if (value.is(type.name)) item.type = type.name;
    return item.type ||
           failure.set(ESCSR_INVALID_FILE,
                       "%.200s holds %.*s; only F32, F16, BF16 and F64 can be read. Give the weights from before they "
                       "were quantised.", item.name.data(), static_cast<int>(least<int64_t>(value.length, 20)),
                       value.text);
}

// {"dtype": "F32", "shape": [16, 3, 3, 3], "data_offsets": [0, 1728]}
bool read_item(JsonReader& reader, Item& item, Failure& failure) {
    JsonValue name;
    bool has_type = false, has_shape = false, has_offsets = false;
    reader.enter(JsonKind::object);
    while (reader.next_member(name)) {
        bool* seen = name.is("dtype")          ? &has_type
                     : name.is("shape")        ? &has_shape
                     : name.is("data_offsets") ? &has_offsets
                                               : nullptr;
        if (!seen || *seen)
            return failure.set(ESCSR_INVALID_FILE, "The entry of %.200s is damaged: %.*s is %s.", item.name.data(),
                               static_cast<int>(least<int64_t>(name.length, 60)), name.text,
                               seen ? "there twice" : "unknown");
        *seen = true;
        if (seen == &has_type && !read_type(reader, item, failure)) return false;
        if (seen == &has_shape && !read_shape(reader, item, failure)) return false;
        if (seen == &has_offsets && !read_offsets(reader, item, failure)) return false;
    }
    return reader.has_failed() || (has_type && has_shape && has_offsets) ||
           failure.set(ESCSR_INVALID_FILE, "The entry of %.200s lacks its type, shape or offsets.", item.name.data());
}

bool count_items(const char* header, int64_t length, int64_t& count, Failure& failure) {
    JsonReader reader(header, length);
    JsonValue name, value;
    count = 0;
    reader.enter(JsonKind::object);
    while (reader.next_member(name) && reader.read(value))
        if (!name.is("__metadata__")) ++count;
    if (!reader.finish()) return refuse_json(reader, failure);
    return count <= MOST_ARRAYS ||
           failure.set(ESCSR_INVALID_FILE, "The file has %.0f arrays; no network has more than %d.",
                       static_cast<double>(count), static_cast<int>(MOST_ARRAYS));
}

bool read_header(const char* header, int64_t length, Objects<Item>& items, Statements& statements, Failure& failure) {
    int64_t count;
    if (!count_items(header, length, count, failure) || !items.make(count, failure)) return false;
    JsonReader reader(header, length);
    JsonValue name;
    bool has_metadata = false;
    count = 0;
    reader.enter(JsonKind::object);
    while (reader.next_member(name)) {
        if (!name.is("__metadata__")) {
            Item& item = items[count++];
            if (!name.decode(item.name, failure) || !read_item(reader, item, failure)) return false;
            continue;
        }
        if (has_metadata) return refuse_header("its metadata are there twice", failure);
        has_metadata = true;
        if (!read_statements(reader, statements, failure)) return false;
    }
    return reader.finish() || refuse_json(reader, failure);
}

bool require_statements(const Statements& statements, Failure& failure) {
    if (statements.format.kind == JsonKind::none)
        return failure.set(ESCSR_INVALID_FILE,
                           "The file states no configuration of escsr's; it may hold weights by the reference's names. "
                           "%s.", CONVERTER);
    if (!statements.format.is(FORMAT_VERSION))
        return failure.set(ESCSR_INVALID_FILE,
                           "The file is of format version %.*s; this library reads version %s. Upgrade escsr.",
                           static_cast<int>(least<int64_t>(statements.format.length, 20)), statements.format.text,
                           FORMAT_VERSION);
    if (statements.configuration.kind == JsonKind::none) return refuse_header("it has no escsr.config", failure);
    return statements.checksum.kind != JsonKind::none || refuse_header("it has no escsr.sha256", failure);
}

// Bytes that an array has by its type and shape; -1 where int64_t cannot hold them.
int64_t expected_bytes(const Item& item) {
    int64_t bytes = type_named(item.type)->num_bytes;
    for (int32_t i = 0; i < item.shape.num_dimensions; ++i) {
        const int64_t side = item.shape.sides[i];
        if (side > 0 && bytes > INT64_MAX / side) return -1;
        bytes *= side;
    }
    return bytes;
}

int by_name(const void* left, const void* right) {
    const Item *a = *static_cast<const Item* const*>(left), *b = *static_cast<const Item* const*>(right);
    return strcmp(a->name.data(), b->name.data());
}

int by_place(const void* left, const void* right) {
    const Item *a = *static_cast<const Item* const*>(left), *b = *static_cast<const Item* const*>(right);
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

// The arrays lie one after another and fill what follows the header.
bool require_places(Buffer<const Item*>& items, int64_t data_bytes, Failure& failure) {
    qsort(items.data(), static_cast<size_t>(items.size()), sizeof(items[0]), by_place);
    int64_t end = 0;
    for (int64_t i = 0; i < items.size(); ++i) {
        const Item& item = *items[i];
        if (item.end - item.begin != expected_bytes(item))
            return failure.set(ESCSR_INVALID_FILE,
                               "The header of the file is damaged: %.200s has %.0f bytes, but not by its shape.",
                               item.name.data(), static_cast<double>(item.end - item.begin));
        if (item.begin < end)
            return failure.set(ESCSR_INVALID_FILE, "The header of the file is damaged: %.200s and %.200s overlap.",
                               items[i - 1]->name.data(), item.name.data());
        if (item.begin > end)
            return failure.set(ESCSR_INVALID_FILE, "The file is damaged: %.0f bytes before %.200s belong to no array.",
                               static_cast<double>(item.begin - end), item.name.data());
        if (item.end > data_bytes)
            return failure.set(ESCSR_INVALID_FILE,
                               "The file is truncated: %.200s ends %.0f bytes after it. Download or copy it again.",
                               item.name.data(), static_cast<double>(item.end - data_bytes));
        end = item.end;
    }
    return end == data_bytes ||
           failure.set(ESCSR_INVALID_FILE, "The file is damaged: %.0f bytes follow the last array.",
                       static_cast<double>(data_bytes - end));
}

// As escsr.weights.store.hash_tensors: "name type [shape]" in a line and the bytes, in the order of the names.
void add_item(const Item& item, const unsigned char* data, Sha256& checksum) {
    const char* type = type_named(item.type)->torch_name;
    char number[32];
    checksum.add(item.name.data(), strlen(item.name.data()));
    checksum.add(" ", 1);
    checksum.add(type, strlen(type));
    checksum.add(" [", 2);
    for (int32_t i = 0; i < item.shape.num_dimensions; ++i) {
        snprintf(number, sizeof(number), i ? ", %.0f" : "%.0f", static_cast<double>(item.shape.sides[i]));
        checksum.add(number, strlen(number));
    }
    checksum.add("]\n", 2);
    checksum.add(data + item.begin, static_cast<size_t>(item.end - item.begin));
}

bool require_checksum(Buffer<const Item*>& items, const unsigned char* data, const JsonValue& expected,
                      Failure& failure) {
    Sha256 checksum;
    char digits[65];
    qsort(items.data(), static_cast<size_t>(items.size()), sizeof(items[0]), by_name);
    for (int64_t i = 1; i < items.size(); ++i)
        if (strcmp(items[i - 1]->name.data(), items[i]->name.data()) == 0)
            return failure.set(ESCSR_INVALID_FILE, "The header of the file is damaged: %.200s is there twice.",
                               items[i]->name.data());
    for (const Item* item : items) add_item(*item, data, checksum);
    checksum.finish(digits);
    return expected.is(digits) ||
           failure.set(ESCSR_INVALID_FILE,
                       "The arrays of the file are not those that its header was written for (their sha256 differs): "
                       "it was changed. Download or copy it again.");
}

}  // namespace

bool read_container(const void* bytes, size_t num_bytes, Tensors& tensors, Buffer<char>& json, Failure& failure) {
    const unsigned char* file = static_cast<const unsigned char*>(bytes);
    Objects<Item> items;
    Statements statements;
    int64_t length = 0;
    if (!find_header(file, num_bytes, length, failure)) return false;
    if (!read_header(reinterpret_cast<const char*>(file) + 8, length, items, statements, failure)) return false;
    if (!require_statements(statements, failure)) return false;
    if (items.size() == 0) return failure.set(ESCSR_INVALID_FILE, "The file holds no arrays.");

    Buffer<const Item*> sorted;
    if (!sorted.allocate(items.size(), failure)) return false;
    for (int64_t i = 0; i < items.size(); ++i) sorted[i] = &items[i];
    const unsigned char* data = file + 8 + length;
    const int64_t data_bytes = static_cast<int64_t>(num_bytes) - 8 - length;
    if (!require_places(sorted, data_bytes, failure)) return false;
    if (!require_checksum(sorted, data, statements.checksum, failure)) return false;
    for (int64_t i = 0; i < items.size(); ++i) {
        const Item& item = items[i];
        if (!tensors.add(item.name.data(), item.type, data + item.begin, item.shape.num_dimensions, item.shape.sides,
                         failure))
            return false;
    }
    return statements.configuration.decode(json, failure);
}

}  // namespace escsr
