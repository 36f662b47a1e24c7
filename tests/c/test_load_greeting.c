/* The line that says who answers, read: where it ends, what is none, whose name is in it. */
#include "support.h"

#include "load_greeting.h"

static fe_json_text name;

/* Whether the text is such a line; its name is then in `name`. */
static int is_one(const char *text)
{
    size_t n = strlen(text);
    /* Of just that size: what is read behind it is found by the sanitizer. */
    unsigned char *bytes = malloc(n + 1);
    int found;

    assert(bytes != NULL);
    memcpy(bytes, text, n);
    found = n > 0 && fe_greeting_name(bytes, n, &name);
    if (found)
        name.bytes = (const unsigned char *)text + (name.bytes - bytes);
    free(bytes);
    return found;
}

static void names(const char *text, const char *expected)
{
    assert(is_one(text));
    assert(name.size == strlen(expected) && memcmp(name.bytes, expected, name.size) == 0);
}

static int size_of(const char *bytes, size_t n)
{
    return fe_greeting_size((const unsigned char *)bytes, n);
}

static void a_line_ends_at_its_newline(void)
{
    static char line[FE_GREETING_LINE_MAX + 1];

    assert(size_of("", 0) == 0);
    assert(size_of("{\"a\":1}", 7) == 0);
    assert(size_of("{\"a\":1}\nmore\n", 13) == 8);
    assert(size_of("x", 1) == -1);
    assert(size_of("\n", 1) == -1);
    memset(line, '{', sizeof(line));
    assert(size_of(line, FE_GREETING_LINE_MAX - 1) == 0);
    assert(size_of(line, FE_GREETING_LINE_MAX) == -1);
    line[FE_GREETING_LINE_MAX] = '\n';
    assert(size_of(line, sizeof(line)) == -1);
    line[FE_GREETING_LINE_MAX - 1] = '\n';
    assert(size_of(line, sizeof(line)) == FE_GREETING_LINE_MAX);
}

static void a_frame_ends_by_its_length(void)
{
    static char frame[FE_GREETING_MAX + 1] = {0, 0, 0x20, 0};

    assert(size_of("\0\0\0", 3) == 0);
    assert(size_of("\0\0\0\1{", 5) == -1);
    assert(size_of("\0\0\0\2", 4) == 0);
    assert(size_of("\0\0\0\2{", 5) == 0);
    assert(size_of("\0\0\0\2{}more", 10) == 6);
    assert(size_of("\0\1\0\0{", 5) == -1);
    assert(size_of("\0\0\x20\1{", 5) == -1);
    assert(size_of(frame, FE_GREETING_MAX - 1) == 0);
    assert(size_of(frame, sizeof(frame)) == FE_GREETING_MAX);
    assert(fe_greeting_name((const unsigned char *)"\0\0\0\x10{\"instance\":\"a\"}", 20, &name));
    assert(name.size == 1 && *name.bytes == 'a');
}

static void the_name_is_found_wherever_it_stands(void)
{
    names("{\"fastecho\":\"0.1.0\",\"instance\":\"web-1\",\"host\":\"node7\",\"worker\":0,"
          "\"seen\":null,\"proxy\":{\"version\":2,\"checksum\":true},\"uptime_s\":3.482}\n",
          "web-1");
    names(" {\t\"instance\" : \"a b\" }\r\n", "a b");
    names("{\"instance\":\"\\u00e9\\\"\\\\\\/\\b\\f\\n\\r\\t\"}\n",
          "\\u00e9\\\"\\\\\\/\\b\\f\\n\\r\\t");
    names("{\"x\":{\"instance\":\"inner\"},\"instance\":\"outer\"}", "outer");
    names("{\"instance\":1,\"instance\":\"last\"}", "last");
    names("{\"instancf\":\"b\",\"instance\":\"a\"}", "a");
    names("{\"a\":[],\"b\":[1,-2, \"c\" ,[true , false]],\"c\":{},\"instance\":\"a\"}", "a");
    names("{\"a\":0,\"b\":-0.5e+10,\"c\":1E-2,\"d\":10e3,\"instance\":\"a\"}", "a");
}

static void what_is_no_such_line_is_none(void)
{
    static const char *const wrong[] = {
        "", "x", "\n", "{", "{}", "{}\n", "{\"host\":\"a\"}", "{\"instance\":\"\"}",
        "{\"instance\":1}", "{\"instance\":\"a\",\"instance\":1}", "{\"instance\":\"a\"} x",
        "{\"instance\":\"a\"", "{\"instance\":\"a\",}", "{\"instance\":\"a\" \"b\":1}",
        "{\"instance\":\"a", "{\"instance\":", "{\"instance\"", "{\"instance\" \"a\"}",
        "{instance:\"a\"}", "{,}", "[\"instance\"]", "\"instance\"",
        /* strings */
        "{\"instance\":\"a\tb\"}", "{\"instance\":\"\x80\"}", "{\"instance\":\"\\x\"}",
        "{\"instance\":\"\\", "{\"instance\":\"\\u12g4\"}", "{\"instance\":\"\\u12",
        "{\"a\":\"b\nc\",\"instance\":\"a\"}", "{\"x\":[\"b\nc\"],\"instance\":\"a\"}",
        /* numbers */
        "{\"a\":01,\"instance\":\"a\"}", "{\"a\":-,\"instance\":\"a\"}",
        "{\"a\":1.,\"instance\":\"a\"}", "{\"a\":.5,\"instance\":\"a\"}",
        "{\"a\":1e,\"instance\":\"a\"}", "{\"a\":1e+,\"instance\":\"a\"}",
        "{\"a\":+1,\"instance\":\"a\"}", "{\"a\":1",
        /* words */
        "{\"a\":tru,\"instance\":\"a\"}", "{\"a\":tr", "{\"a\":fals_,\"instance\":\"a\"}",
        "{\"a\":nul_,\"instance\":\"a\"}", "{\"a\":x,\"instance\":\"a\"}",
        /* arrays and objects */
        "{\"a\":[,\"instance\":\"a\"}", "{\"a\":[1,],\"instance\":\"a\"}",
        "{\"a\":[1 2],\"instance\":\"a\"}", "{\"a\":[1", "{\"a\":[", "{\"a\":{\"b\"},\"instance\":\"a\"}",
        "{\"a\":{\"b\":1,\"instance\":\"a\"}",
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert(!is_one(wrong[i]));
}

/* `depth` arrays, or objects, in one another, in the line's object. */
static int is_deep(int depth, char open, char close)
{
    char text[1024] = "{\"instance\":\"a\",\"b\":";
    size_t at = strlen(text);

    for (int i = 0; i < depth; i++) {
        text[at++] = open;
        if (open == '{') {
            memcpy(text + at, "\"b\":", 4);
            at += 4;
        }
    }
    text[at++] = '1';
    for (int i = 0; i < depth; i++)
        text[at++] = close;
    text[at++] = '}';
    return is_one(text);
}

static void there_is_a_bound_to_the_depth(void)
{
    assert(is_deep(FE_GREETING_DEPTH - 1, '[', ']'));
    assert(!is_deep(FE_GREETING_DEPTH, '[', ']'));
    assert(is_deep(FE_GREETING_DEPTH - 1, '{', '}'));
    assert(!is_deep(FE_GREETING_DEPTH, '{', '}'));
    assert(!is_deep(100, '[', ']'));
}

/* Every line is one only when it is whole, and no byte but ASCII is in it. */
static void every_part_and_every_byte(void)
{
    static const char line[] = "{\"a\":[1.5e3,{}],\"instance\":\"w\\u00e9\"}";
    unsigned char bytes[sizeof(line)];

    for (size_t n = 1; n < sizeof(line); n++) {
        memcpy(bytes, line, n);
        assert(fe_greeting_name(bytes, n, &name) == (n == sizeof(line) - 1));
        for (int byte = 0x80; byte <= 0xff; byte++) {
            memcpy(bytes, line, sizeof(line));
            bytes[n - 1] = (unsigned char)byte;
            assert(!fe_greeting_name(bytes, sizeof(line) - 1, &name));
        }
    }
}

static void instances_are_counted_by_name(void)
{
    static fe_instances all;
    fe_json_text a = {(const unsigned char *)"web-1", 5}, b = {(const unsigned char *)"web-2", 5},
                 c = {(const unsigned char *)"web", 3};

    assert(fe_instances_find(&all, &a) == 0);
    all.each[0].name = (unsigned char *)"web-1";
    all.each[0].size = 5;
    all.used = 1;
    assert(fe_instances_find(&all, &a) == 0);
    assert(fe_instances_find(&all, &b) == 1);
    assert(fe_instances_find(&all, &c) == 1);
    for (; all.used < FE_INSTANCES; all.used++)
        all.each[all.used] = all.each[0];
    assert(fe_instances_find(&all, &b) == FE_INSTANCES);
    all.each[0].connections = all.each[FE_INSTANCES].messages = 7;
    fe_instances_forget(&all);
    assert(all.each[0].connections == 0 && all.each[FE_INSTANCES].messages == 0);
    assert(all.used == FE_INSTANCES && all.each[0].size == 5);
}

int main(void)
{
    a_line_ends_at_its_newline();
    a_frame_ends_by_its_length();
    the_name_is_found_wherever_it_stands();
    what_is_no_such_line_is_none();
    there_is_a_bound_to_the_depth();
    every_part_and_every_byte();
    instances_are_counted_by_name();
    return 0;
}
