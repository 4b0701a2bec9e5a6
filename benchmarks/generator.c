/* The load generator: one epoll loop, one command a line on stdin, one JSON answer a line on stdout.
 *
 * Written in C so that it can take half a million messages a second on one core and is never what
 * the benchmark measures. benchmarks/generator.py compiles it, starts it with ports of 127.0.0.1, on which its connections take turns,
 * and is the only one to talk to it. Fields of a command are separated by tabs:
 *
 *   speak OUT IN                       templates of messages, see below
 *   open COUNT AT_ONCE PATH STEPS      connect members
 *   publisher PATH STEPS               connect the one that publishes; it is no member
 *   greet                              one message on each connection, one after the other
 *   echo COUNT IN_FLIGHT               COUNT messages in all, IN_FLIGHT on each connection
 *   probe RATE SECONDS                 echo on the first connection, on a schedule
 *   meet                               publish until every member has got a message
 *   fanout COUNT IN_FLIGHT             publish; the next when every member has got an earlier one
 *   paced RATE SECONDS GRACE           publish on a schedule, then wait GRACE seconds for the rest
 *   visit COUNT AT_ONCE PATH STEPS     connect, go through the steps, close; COUNT times
 *   hold SECONDS                       answer pings
 *   close                              close everything
 *
 * STEPS are pairs EXPECT REPLY: a text that begins with EXPECT is awaited after the handshake, and
 * REPLY sent, unless it is empty; an empty EXPECT at the start is awaited no time. In a template, ten S stand for the sequence number (in what is sent, twice at most) and nineteen T
 * for the time of CLOCK_MONOTONIC in ns plus 10^18, so that both are numbers of a fixed width. What
 * comes must equal the template but for those two, and for what stands in place of a star at its end. Delays are from the time in a message, which for
 * a schedule is the time it was due, to the read that brought it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 12000, EVENTS = 1024, BUFFER = 1 << 18, RING = 1024, LONGEST = 2048, STEPS = 4 };
enum { SEQUENCE_WIDTH = 10, TIME_WIDTH = 19 };
static const uint64_t SEQUENCE_BASE = 1000000000, TIME_BASE = 1000000000000000000u;
static const double PATIENCE = 60.0; /* seconds one command may take beyond its schedule */

typedef enum { FREE, CONNECTING, UPGRADING, STEPPING, OPEN, LEAVING } State;

typedef struct {
    int fd;
    State state;
    int step, port;
    uint64_t sent, next; /* the sequence numbers to send, and to get, next */
    bool met;            /* it has got a message since `meet` began */
    uint32_t rest_size;  /* bytes of a frame that is not complete */
    uint8_t *rest;
    uint32_t unsent_size; /* bytes the kernel did not take */
    uint8_t *unsent;
} Connection;

typedef struct {
    char text[LONGEST];
    size_t size, sequence, time;
    size_t again;  /* where the sequence number stands a second time, or 0 */
    bool open_end; /* it ends with a star: anything may follow */
} Template;

static struct {
    char path[256];
    char expect[STEPS][256], reply[STEPS][256];
    int count;
} script;

static Connection all[MOST + 1];
static Connection *const publisher = &all[MOST];
static int members, ports[8], port_count, next_port, poller, source = 1;
static Template out, in;
static uint8_t buffer[BUFFER];
static enum { NOTHING, ECHO, PROBE, FANOUT, VISIT } mode;
static char failure[512];

/* Counts of the command under way. */
static uint64_t wanted, unsent, received, gaps, disorder, pings, base, published, completed;
static uint32_t got[RING];
static int opened, started, ended, visits, upgraded, met;

/* Delays in a histogram of 64 steps per doubling: 1.6 % apart. */
static uint32_t histogram[64 * 64];
static uint64_t longest;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double own_cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *format, ...) {
    if (failure[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure, sizeof failure, format, arguments);
    va_end(arguments);
    for (char *c = failure; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '\'';
}

static void note_delay(uint64_t ns) {
    if (ns > longest) longest = ns;
    unsigned shift = ns < 64 ? 0 : 58 - (unsigned)__builtin_clzll(ns); /* 58 = 63 - 5 */
    histogram[shift * 64 + (ns >> shift)]++;
}

/* The delay in ms that `share` of the messages did not exceed. */
static double delay(double share) {
    uint64_t total = 0, sum = 0;
    for (int i = 0; i < 64 * 64; i++) total += histogram[i];
    for (int i = 0; i < 64 * 64; i++) {
        sum += histogram[i];
        if (total && (double)sum >= share * (double)total)
            return (double)((uint64_t)(i % 64) << (i / 64)) / 1e6;
    }
    return 0;
}

/* Numbers of a fixed width */

static void put_number(char *at, int width, uint64_t value) {
    for (int i = width - 1; i >= 0; i--, value /= 10) at[i] = (char)('0' + value % 10);
}

static uint64_t get_number(const uint8_t *at, int width) {
    uint64_t value = 0;
    for (int i = 0; i < width; i++) value = value * 10 + (at[i] - '0');
    return value;
}

static void read_template(Template *template, const char *text) {
    snprintf(template->text, sizeof template->text, "%s", text);
    template->size = strlen(template->text);
    template->open_end = template->size && template->text[template->size - 1] == '*';
    if (template->open_end) template->text[--template->size] = 0;
    const char *s = strstr(template->text, "SSSSSSSSSS"), *t = strstr(template->text, "TTTTTTTTTTTTTTTTTTT");
    if (!s || !t || t < s) { fail("no such template: %s", text); return; }
    template->sequence = (size_t)(s - template->text);
    const char *again = strstr(s + SEQUENCE_WIDTH, "SSSSSSSSSS");
    template->again = again ? (size_t)(again - template->text) : 0;
    template->time = (size_t)(t - template->text);
}

/* Sending */

static void watch(Connection *c, bool add, bool writes) {
    struct epoll_event event = {.events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c->fd, &event);
}

static void send_bytes(Connection *c, const uint8_t *data, size_t size) {
    ssize_t taken = 0;
    if (!c->unsent_size) {
        taken = send(c->fd, data, size, MSG_NOSIGNAL);
        if (taken < 0) taken = 0; /* full; or broken, which the next read tells */
        if ((size_t)taken == size) return;
        watch(c, false, true);
    }
    size_t left = size - (size_t)taken;
    c->unsent = realloc(c->unsent, c->unsent_size + left);
    memcpy(c->unsent + c->unsent_size, data + taken, left);
    c->unsent_size += (uint32_t)left;
}

static void send_rest(Connection *c) {
    if (c->unsent_size) {
        ssize_t taken = send(c->fd, c->unsent, c->unsent_size, MSG_NOSIGNAL);
        if (taken <= 0) return;
        c->unsent_size -= (uint32_t)taken;
        memmove(c->unsent, c->unsent + taken, c->unsent_size);
    }
    if (!c->unsent_size) watch(c, false, false);
}

static void send_frame(Connection *c, uint8_t opcode, const void *payload, size_t size) {
    static uint32_t random = 2463534242u;
    uint8_t frame[LONGEST + 8], mask[4];
    size_t head = 2;
    frame[0] = 0x80 | opcode;
    if (size < 126) {
        frame[1] = 0x80 | (uint8_t)size;
    } else {
        frame[1] = 0x80 | 126;
        frame[2] = (uint8_t)(size >> 8);
        frame[3] = (uint8_t)size;
        head = 4;
    }
    random ^= random << 13, random ^= random >> 17, random ^= random << 5;
    memcpy(mask, &random, 4);
    memcpy(frame + head, mask, 4);
    for (size_t i = 0; i < size; i++) frame[head + 4 + i] = ((const uint8_t *)payload)[i] ^ mask[i & 3];
    send_bytes(c, frame, head + 4 + size);
}

static void send_message(Connection *c, uint64_t sequence, uint64_t when) {
    put_number(out.text + out.sequence, SEQUENCE_WIDTH, SEQUENCE_BASE + sequence);
    if (out.again) put_number(out.text + out.again, SEQUENCE_WIDTH, SEQUENCE_BASE + sequence);
    put_number(out.text + out.time, TIME_WIDTH, TIME_BASE + when);
    send_frame(c, 1, out.text, out.size);
}

static void send_next(Connection *c, uint64_t when) {
    if (!unsent) return;
    unsent--;
    send_message(c, c->sent++, when);
}

static void publish(uint64_t when) { send_message(publisher, published++, when); }

/* Connections */

static void connect_one(Connection *c) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    c->port = ports[next_port++ % port_count];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)c->port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->state = CONNECTING;
    while (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        /* Out of ports: 127.0.0.2 has as many again. */
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)source);
        if (errno != EADDRNOTAVAIL || ++source > 100) { fail("connect: %s", strerror(errno)); return; }
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0) { fail("bind: %s", strerror(errno)); return; }
    }
    watch(c, true, true);
}

static void upgrade(Connection *c) {
    char request[1024];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n"
                        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        script.path, c->port, c->port);
    c->state = UPGRADING;
    watch(c, false, false);
    send_bytes(c, (uint8_t *)request, (size_t)size);
}

static void begin_leaving(Connection *c) {
    c->state = LEAVING;
    send_frame(c, 8, "\x03\xe8", 2);
}

static void is_open(Connection *c) {
    c->state = OPEN;
    opened++;
    if (mode == VISIT) begin_leaving(c);
}

static void is_gone(Connection *c, const char *why) {
    if (c->state == FREE) return;
    if (c->state != LEAVING) fail("the server closed a connection in state %d: %s", c->state, why);
    close(c->fd);
    free(c->rest);
    free(c->unsent);
    memset(c, 0, sizeof *c);
    ended++;
    if (mode == VISIT && started < visits) {
        started++;
        connect_one(c);
    }
}

/* Receiving */

static void on_sequence(Connection *c, uint64_t sequence, uint64_t sent_at, uint64_t now) {
    if (mode == FANOUT) {
        if (!c->met) c->met = true, met++;
        if (sequence < base) return; /* of an earlier command */
    }
    if (sequence < c->next) { disorder++; return; }
    gaps += sequence - c->next;
    c->next = sequence + 1;
    received++;
    note_delay(now > sent_at ? now - sent_at : 0);
    if (mode == FANOUT && ++got[sequence % RING] == (uint32_t)members) {
        got[sequence % RING] = 0;
        completed++;
    } else if (mode == ECHO) {
        send_next(c, now);
    }
}

static void on_text(Connection *c, const uint8_t *payload, size_t size, uint64_t now) {
    if (c->state == STEPPING) {
        const char *expect = script.expect[c->step], *reply = script.reply[c->step];
        if (size < strlen(expect) || memcmp(payload, expect, strlen(expect))) return;
        if (*reply) send_frame(c, 1, reply, strlen(reply));
        if (++c->step == script.count) is_open(c);
        return;
    }
    if (size == 2 && !memcmp(payload, "{}", 2)) { /* a ping of the client protocol */
        pings++;
        send_frame(c, 1, "{}", 2);
        return;
    }
    if (size == 1 && payload[0] == '2') { /* a ping of engine.io */
        pings++;
        send_frame(c, 1, "3", 1);
        return;
    }
    if (c == publisher || mode == VISIT || mode == NOTHING) return;
    const size_t after = in.time + TIME_WIDTH;
    if ((in.open_end ? size < in.size : size != in.size) ||
        memcmp(payload + after, in.text + after, in.size - after) ||
        memcmp(payload, in.text, in.sequence)) {
        fail("not what was sent: %.*s", (int)(size < 200 ? size : 200), payload);
        return;
    }
    on_sequence(c, get_number(payload + in.sequence, SEQUENCE_WIDTH) - SEQUENCE_BASE,
                get_number(payload + in.time, TIME_WIDTH) - TIME_BASE, now);
}

/* Take whole frames from `data`; returns the bytes taken. */
static size_t take_frames(Connection *c, const uint8_t *data, size_t size, uint64_t now) {
    size_t at = 0;
    while (size - at >= 2 && c->state > UPGRADING) {
        size_t head = 2, length = data[at + 1] & 0x7f;
        if (data[at + 1] & 0x80) { fail("a masked frame"); return size; }
        if (length == 126) {
            if (size - at < 4) break;
            length = (size_t)data[at + 2] << 8 | data[at + 3];
            head = 4;
        } else if (length == 127) { fail("a frame of over 64 KiB"); return size; }
        if (size - at < head + length) break;
        const uint8_t opcode = data[at] & 0x0f, *payload = data + at + head;
        at += head + length;
        if (opcode == 1 && c->state != LEAVING) on_text(c, payload, length, now);
        else if (opcode == 9) { pings++; send_frame(c, 10, payload, length); }
        else if (opcode == 8 && c->state != LEAVING) {
            unsigned code = length < 2 ? 1005 : (unsigned)payload[0] << 8 | payload[1];
            fail("the server closed a connection with %u %.*s", code, (int)length - 2, payload + 2);
        }
    }
    return at;
}

static size_t take_answer(Connection *c, const uint8_t *data, size_t size) {
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (size < 12 || memcmp(data, "HTTP/1.1 101", 12)) {
        fail("the handshake was answered %.*s", 60, data);
        return size;
    }
    upgraded++;
    c->state = STEPPING;
    if (script.count && !*script.expect[0]) {
        send_frame(c, 1, script.reply[0], strlen(script.reply[0]));
        c->step = 1;
    }
    if (c->step == script.count) is_open(c);
    return (size_t)(end - data) + 4;
}

static void on_readable(Connection *c) {
    const uint32_t kept = c->rest_size;
    if (kept) memcpy(buffer, c->rest, kept);
    const ssize_t count = recv(c->fd, buffer + kept, BUFFER - kept, 0);
    if (count <= 0) {
        if (count == 0 || errno != EAGAIN) is_gone(c, count ? strerror(errno) : "end of stream");
        return;
    }
    const uint64_t now = now_ns();
    size_t size = kept + (size_t)count, at = 0;
    if (c->state == UPGRADING) at = take_answer(c, buffer, size);
    if (c->state > UPGRADING) at += take_frames(c, buffer + at, size - at, now);
    c->rest_size = (uint32_t)(size - at);
    if (c->rest_size) {
        c->rest = realloc(c->rest, c->rest_size);
        memcpy(c->rest, buffer + at, c->rest_size);
    }
}

static void on_event(Connection *c, uint32_t events) {
    if (c->state == FREE) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) fail("connect: %s", strerror(error));
        else if (events & EPOLLOUT) upgrade(c);
        return;
    }
    if (events & EPOLLOUT) send_rest(c);
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) on_readable(c);
}

/* Serve events for at most `seconds`, and once at least. */
static void turn(double seconds) {
    struct epoll_event events[EVENTS];
    struct timespec wait = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    if (seconds < 0) wait.tv_sec = wait.tv_nsec = 0;
    const int count = epoll_pwait2(poller, events, EVENTS, &wait, NULL);
    for (int i = 0; i < count && !failure[0]; i++) on_event(events[i].data.ptr, events[i].events);
}

static bool in_time(uint64_t deadline, const char *what) {
    if (failure[0]) return false;
    if (now_ns() < deadline) return true;
    fail("%s: not done in time", what);
    return false;
}

static uint64_t after(double seconds) { return now_ns() + (uint64_t)(seconds * 1e9); }

static double until(uint64_t when) {
    const uint64_t now = now_ns();
    return when > now ? (double)(when - now) / 1e9 : 0;
}

/* Commands */

static void connect_all(Connection *first, int count, int at_once) {
    const uint64_t deadline = after(PATIENCE);
    int begun = 0;
    opened = 0;
    while (opened < count && in_time(deadline, "connecting")) {
        while (begun < count && begun - opened < at_once && !failure[0]) connect_one(first + begun++);
        turn(0.1);
    }
}

static void begin(int new_mode) {
    mode = new_mode;
    received = gaps = disorder = pings = longest = wanted = 0;
    memset(histogram, 0, sizeof histogram);
    memset(got, 0, sizeof got);
}

static void greet(void) {
    const uint64_t deadline = after(PATIENCE);
    begin(ECHO);
    for (int i = 0; i < members; i++) {
        wanted++;
        unsent = 1;
        send_next(&all[i], now_ns());
        while (received < wanted && in_time(deadline, "greet")) turn(0.1);
    }
}

static void echo(uint64_t count, int in_flight) {
    const uint64_t deadline = after(PATIENCE);
    begin(ECHO);
    wanted = unsent = count;
    for (int k = 0; k < in_flight; k++)
        for (int i = 0; i < members; i++) send_next(&all[i], now_ns());
    while (received < wanted && in_time(deadline, "echo")) turn(0.1);
}

static void probe(double rate, double seconds) {
    const uint64_t start = now_ns(), deadline = after(seconds + PATIENCE);
    begin(PROBE);
    wanted = (uint64_t)(rate * seconds);
    for (uint64_t sent = 0; received < wanted && in_time(deadline, "probe");) {
        const uint64_t due = start + (uint64_t)((double)sent / rate * 1e9);
        if (sent < wanted && due <= now_ns()) {
            sent++;
            send_message(&all[0], all[0].sent++, due);
        } else {
            turn(sent < wanted ? until(due) : 0.1);
        }
    }
}

static void meet(void) {
    const uint64_t deadline = after(PATIENCE);
    begin(FANOUT);
    met = 0;
    for (int i = 0; i < members; i++) all[i].met = false;
    base = UINT64_MAX; /* nothing of this counts */
    uint64_t last = 0;
    while (met < members && in_time(deadline, "meet")) {
        if (now_ns() > last + 200000000u) publish(last = now_ns());
        turn(0.01);
    }
}

static void begin_publishing(void) {
    begin(FANOUT);
    base = published;
    completed = 0;
    for (int i = 0; i < members; i++) all[i].next = base;
}

static void fanout(uint64_t count, uint64_t in_flight) {
    const uint64_t deadline = after(PATIENCE);
    begin_publishing();
    wanted = count * (uint64_t)members;
    while (completed < count && in_time(deadline, "fanout")) {
        while (published - base < count && published - base - completed < in_flight) publish(now_ns());
        turn(0.1);
    }
}

static void paced(double rate, double seconds, double grace) {
    const uint64_t start = now_ns(), deadline = after(seconds + grace);
    begin_publishing();
    const uint64_t count = (uint64_t)(rate * seconds);
    wanted = count * (uint64_t)members;
    while (received < wanted && now_ns() < deadline && !failure[0]) {
        const uint64_t due = start + (uint64_t)((double)(published - base) / rate * 1e9);
        if (published - base < count && due <= now_ns()) publish(due);
        else turn(published - base < count ? until(due) : 0.05);
    }
}

static void visit(int count, int at_once) {
    const uint64_t deadline = after(PATIENCE);
    begin(VISIT);
    visits = count;
    started = ended = opened = 0;
    for (; started < at_once && started < count; started++) connect_one(&all[started]);
    while (ended < count && in_time(deadline, "visit")) turn(0.1);
    wanted = received = (uint64_t)ended;
}

static void hold(double seconds) {
    const uint64_t end = after(seconds);
    begin(NOTHING);
    while (now_ns() < end && !failure[0]) turn(until(end));
}

static void close_all(void) {
    const uint64_t deadline = after(PATIENCE);
    int open = 0;
    begin(NOTHING);
    ended = 0;
    for (int i = 0; i <= MOST; i++)
        if (all[i].state == OPEN) {
            begin_leaving(&all[i]);
            if (++open % 100 == 0) turn(0);
        }
    while (ended < open && in_time(deadline, "closing")) turn(0.1);
    members = 0;
    published = 0;
}

static void read_script(char **words, int count) {
    memset(&script, 0, sizeof script);
    snprintf(script.path, sizeof script.path, "%s", words[0]);
    for (int i = 1; i + 1 < count && script.count < STEPS; i += 2, script.count++) {
        snprintf(script.expect[script.count], sizeof script.expect[0], "%s", words[i]);
        snprintf(script.reply[script.count], sizeof script.reply[0], "%s", words[i + 1]);
    }
}

static void obey(char **words, int count) {
    const char *what = words[0];
    if (!strcmp(what, "speak") && count == 3) {
        read_template(&out, words[1]);
        read_template(&in, words[2]);
    } else if (!strcmp(what, "open") && count >= 4) {
        const int first = members, more = atoi(words[1]);
        if (more < 0 || first + more > MOST) { fail("at most %d connections", MOST); return; }
        read_script(words + 3, count - 3);
        begin(NOTHING);
        members += more;
        connect_all(&all[first], more, atoi(words[2]));
    } else if (!strcmp(what, "publisher") && count >= 2) {
        read_script(words + 1, count - 1);
        begin(NOTHING);
        connect_all(publisher, 1, 1);
    } else if (!strcmp(what, "visit") && count >= 4 && !members) {
        read_script(words + 3, count - 3);
        visit(atoi(words[1]), atoi(words[2]));
    } else if (!strcmp(what, "greet")) greet();
    else if (!strcmp(what, "echo") && count == 3) echo(strtoull(words[1], NULL, 10), atoi(words[2]));
    else if (!strcmp(what, "probe") && count == 3 && members) probe(atof(words[1]), atof(words[2]));
    else if (!strcmp(what, "meet")) meet();
    else if (!strcmp(what, "fanout") && count == 3)
        fanout(strtoull(words[1], NULL, 10), strtoull(words[2], NULL, 10));
    else if (!strcmp(what, "paced") && count == 4) paced(atof(words[1]), atof(words[2]), atof(words[3]));
    else if (!strcmp(what, "hold") && count == 2) hold(atof(words[1]));
    else if (!strcmp(what, "close")) close_all();
    else fail("no such command: %s", what);
}

static void answer(double wall, double own) {
    printf("{\"error\": \"%s\", \"wall\": %.6f, \"own\": %.6f, \"wanted\": %lu, \"received\": %lu, "
           "\"gaps\": %lu, \"disorder\": %lu, \"pings\": %lu, "
           "\"p50\": %.3f, \"p99\": %.3f, \"longest\": %.3f}\n",
           failure, wall, own, wanted, received, gaps, disorder, pings, delay(0.5), delay(0.99),
           (double)longest / 1e6);
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count < 2 || count > 9) return 2;
    for (; port_count < count - 1; port_count++) ports[port_count] = atoi(arguments[port_count + 1]);
    poller = epoll_create1(0);
    signal(SIGPIPE, SIG_IGN);
    char *line = NULL;
    size_t space = 0;
    for (ssize_t size; (size = getline(&line, &space, stdin)) > 0;) {
        char *words[4 + 2 * STEPS + 1], *rest = line;
        int found = 0;
        if (line[size - 1] == '\n') line[size - 1] = 0;
        while (found < (int)(sizeof words / sizeof *words) && (words[found] = strsep(&rest, "\t"))) found++;
        const double began = own_cpu();
        const uint64_t start = now_ns();
        obey(words, found);
        answer((double)(now_ns() - start) / 1e9, own_cpu() - began);
    }
    return 0;
}
