/* The line that says who answers: each part of it, and that nothing of others ends it. */
#include "support.h"

#include "identify.h"

static const unsigned char LOOPBACK[4] = {127, 0, 0, 1};

static fe_identity identity(void)
{
    fe_identity of = {.number = 7, .uptime_ms = 12034, .worker = 3};

    return of;
}

/* Writes it into room that is just large enough, and compares. */
static void says(const fe_identity *of, const char *text)
{
    unsigned char out[FE_IDENTIFY_MAX];
    size_t n = fe_identify_write(of, out);

    assert(n <= sizeof(out) && out[n - 1] == '\n' && memchr(out, '\n', n) == out + n - 1);
    assert(n == strlen(text) && memcmp(out, text, n) == 0);
}

static void without_a_proxy_the_socket_is_seen(void)
{
    static const unsigned char mapped[16] = {[10] = 0xff, [11] = 0xff, [12] = 192, [14] = 2,
                                             [15] = 9};
    static const unsigned char six[16] = {[0] = 0x20, [1] = 1, [2] = 0xd, [3] = 0xb8, [15] = 1};
    fe_identity of = identity();

    says(&of, ",\"worker\":3,\"connection\":7,\"seen\":null,\"claimed\":null,\"proxy\":null,"
              "\"uptime_s\":12.034}\n");
    of.seen = LOOPBACK;
    of.seen_port = 80;
    of.number = UINT64_MAX;
    of.uptime_ms = 999;
    says(&of, ",\"worker\":3,\"connection\":18446744073709551615,\"seen\":\"127.0.0.1:80\","
              "\"claimed\":null,\"proxy\":null,\"uptime_s\":0.999}\n");
    of.seen = six;
    of.seen_is_ipv6 = 1;
    of.number = of.uptime_ms = 0;
    says(&of, ",\"worker\":3,\"connection\":0,\"seen\":\"[2001:db8::1]:80\",\"claimed\":null,"
              "\"proxy\":null,\"uptime_s\":0.000}\n");
    of.seen = mapped;
    says(&of, ",\"worker\":3,\"connection\":0,\"seen\":\"192.0.2.9:80\",\"claimed\":null,"
              "\"proxy\":null,\"uptime_s\":0.000}\n");
}

static void a_header_is_told_with_what_it_has(void)
{
    static const unsigned char header[] = "example.org\x01\xfe";
    fe_proxy p = {.version = 2, .family = FE_PROXY_INET, .source_port = 9, .destination_port = 10,
                  .source = {192, 0, 2, 1}, .destination = {192, 0, 2, 2}};
    fe_identity of = identity();

    of.proxy = &p;
    of.header = header;
    says(&of, ",\"worker\":3,\"connection\":7,\"seen\":null,\"claimed\":\"192.0.2.1:9\",\"proxy\":"
              "{\"version\":2,\"command\":\"PROXY\",\"destination\":\"192.0.2.2:10\"},"
              "\"uptime_s\":12.034}\n");
    p.authority_size = 11;
    p.unique_id = 11;
    p.unique_id_size = 2;
    p.has_checksum = 1;
    says(&of, ",\"worker\":3,\"connection\":7,\"seen\":null,\"claimed\":\"192.0.2.1:9\",\"proxy\":"
              "{\"version\":2,\"command\":\"PROXY\",\"destination\":\"192.0.2.2:10\","
              "\"authority\":\"example.org\",\"unique_id\":\"01fe\",\"checksum\":true},"
              "\"uptime_s\":12.034}\n");
    p = (fe_proxy){.version = 1, .family = FE_PROXY_INET6, .source = {[15] = 1}};
    says(&of, ",\"worker\":3,\"connection\":7,\"seen\":null,\"claimed\":\"[::1]:0\",\"proxy\":"
              "{\"version\":1,\"command\":\"PROXY\",\"destination\":\"[::]:0\"},"
              "\"uptime_s\":12.034}\n");
    p = (fe_proxy){.version = 2, .is_local = 1, .family = FE_PROXY_INET};
    says(&of, ",\"worker\":3,\"connection\":7,\"seen\":null,\"claimed\":null,\"proxy\":"
              "{\"version\":2,\"command\":\"LOCAL\",\"destination\":null},\"uptime_s\":12.034}\n");
    p = (fe_proxy){.version = 1, .family = FE_PROXY_UNKNOWN};
    says(&of, ",\"worker\":3,\"connection\":7,\"seen\":null,\"claimed\":null,\"proxy\":"
              "{\"version\":1,\"command\":\"PROXY\",\"destination\":null},\"uptime_s\":12.034}\n");
}

static void a_path_is_written_up_to_its_end(void)
{
    fe_proxy p = {.version = 2, .family = FE_PROXY_UNIX, .source = "/a\"\\\n\x7f\xff"};
    fe_identity of = identity();
    unsigned char out[FE_IDENTIFY_MAX];
    size_t n;

    of.proxy = &p;
    says(&of, ",\"worker\":3,\"connection\":7,\"seen\":null,"
              "\"claimed\":\"unix:/a\\u0022\\u005c\\u000a\\u007f\\u00ff\",\"proxy\":"
              "{\"version\":2,\"command\":\"PROXY\",\"destination\":\"unix:\"},"
              "\"uptime_s\":12.034}\n");
    memset(p.source, 'x', sizeof(p.source));
    n = fe_identify_write(&of, out);
    out[n - 1] = 0;
    assert(strspn(strstr((char *)out, "unix:") + 5, "x") == sizeof(p.source));
}

/* How often the escape of one byte stands in a line that a zero ends. */
static int escapes(const unsigned char *line, const char *escape)
{
    const char *p = (const char *)line;
    int n = 0;

    while ((p = strstr(p, escape)) != NULL) {
        p += strlen(escape);
        n++;
    }
    return n;
}

/* All of it at its longest fits the room that is promised. */
static void the_longest_line_fits(void)
{
    static unsigned char header[FE_PROXY_MAX];
    fe_proxy p = {.version = 2, .family = FE_PROXY_UNIX, .has_checksum = 1,
                  .authority_size = FE_PROXY_MAX, .unique_id_size = 128};
    fe_identity of = identity();
    unsigned char *out = malloc(FE_IDENTIFY_MAX);
    static const unsigned char six[16] = "abcdefghijklmnop";
    size_t n;

    assert(out != NULL);
    memset(p.source, 0xff, sizeof(p.source));
    memset(p.destination, 0xff, sizeof(p.destination));
    memset(header, '"', sizeof(header));
    of.proxy = &p;
    of.header = header;
    of.seen = six;
    of.seen_is_ipv6 = 1;
    of.seen_port = UINT16_MAX;
    of.number = of.uptime_ms = UINT64_MAX;
    of.worker = UINT32_MAX;
    n = fe_identify_write(&of, out);
    assert(n <= FE_IDENTIFY_MAX && n > 6 * (2 * 108 + 255) + 256);
    assert(out[n - 1] == '\n');
    out[n - 1] = 0;
    assert(escapes(out, "\\u00ff") == 2 * 108 && escapes(out, "\\u0022") == 255);
    free(out);
}

int main(void)
{
    without_a_proxy_the_socket_is_seen();
    a_header_is_told_with_what_it_has();
    a_path_is_written_up_to_its_end();
    the_longest_line_fits();
    return 0;
}
