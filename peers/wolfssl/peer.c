/* A foreign DTLS peer with PSK and Connection ID, on wolfSSL. For tests only.
 *
 *   wolfssl-peer client PORT SUITE [OPTION...]   each round from another UDP port than the last: the Connection ID has to
 *                                                carry it
 *   wolfssl-peer server PORT SUITE [OPTION...]   sends back what comes
 *
 * The version is that of the suite. Options:
 *
 *   no-cid   no Connection IDs; the client stays at its port
 *   update   the client updates its key before each round but the first (DTLS 1.3)
 *
 * Identity and key are those of crates/dtls/tests/suite/interop.rs. */
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define IDENTITY "meter-7"
#define KEY_OCTETS 32
#define ROUNDS 4
#define PATIENCE_SECONDS 60

static unsigned int client_key(WOLFSSL *ssl, const char *hint, char *identity, unsigned int identity_max,
                               unsigned char *key, unsigned int key_max) {
    (void)ssl, (void)hint;
    if (identity_max < sizeof IDENTITY || key_max < KEY_OCTETS) return 0;
    strcpy(identity, IDENTITY);
    memset(key, 0x5a, KEY_OCTETS);
    return KEY_OCTETS;
}

static const char *suite;
static int with_ids = 1, updates;

static unsigned int client_key13(WOLFSSL *ssl, const char *hint, char *identity, unsigned int identity_max,
                                 unsigned char *key, unsigned int key_max, const char **key_suite) {
    *key_suite = suite;
    return client_key(ssl, hint, identity, identity_max, key, key_max);
}

static unsigned int server_key(WOLFSSL *ssl, const char *identity, unsigned char *key, unsigned int key_max) {
    (void)ssl;
    if (strcmp(identity, IDENTITY) != 0 || key_max < KEY_OCTETS) return 0;
    memset(key, 0x5a, KEY_OCTETS);
    return KEY_OCTETS;
}

static unsigned int server_key13(WOLFSSL *ssl, const char *identity, unsigned char *key, unsigned int key_max,
                                 const char **key_suite) {
    *key_suite = suite;
    return server_key(ssl, identity, key, key_max);
}

static void fail(const char *what, int code) {
    printf("failed: %s %d\n", what, code);
    exit(1);
}

static int udp_socket(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval patience = {PATIENCE_SECONDS, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void use_connection_id(WOLFSSL *ssl, const char *id) {
    if (wolfSSL_dtls_cid_use(ssl) != WOLFSSL_SUCCESS) fail("cid_use", 0);
    if (wolfSSL_dtls_cid_set(ssl, (unsigned char *)id, strlen(id)) != WOLFSSL_SUCCESS) fail("cid_set", 0);
}

static void established(WOLFSSL *ssl) {
    unsigned int sent = 0, received = 0;
    if (with_ids) {
        wolfSSL_dtls_cid_get_tx_size(ssl, &sent);
        wolfSSL_dtls_cid_get_rx_size(ssl, &received);
    }
    printf("established %s %s, Connection IDs %u %u\n", wolfSSL_get_version(ssl), wolfSSL_get_cipher(ssl), sent, received);
}

static void client(WOLFSSL *ssl, struct sockaddr_in *address) {
    int fds[2] = {udp_socket(), udp_socket()};
    for (int i = 0; i < 2; i++)
        if (connect(fds[i], (struct sockaddr *)address, sizeof *address) != 0) fail("connect", i);
    wolfSSL_set_fd(ssl, fds[0]);
    if (wolfSSL_connect(ssl) != WOLFSSL_SUCCESS) fail("handshake", wolfSSL_get_error(ssl, -1));
    established(ssl);
    for (int round = 0; round < ROUNDS; round++) {
        char line[64], answer[64] = {0};
        int octets = snprintf(line, sizeof line, "round %d", round);
        wolfSSL_set_fd(ssl, fds[with_ids ? round % 2 : 0]);
        if (updates && round > 0) {
            int code = wolfSSL_update_keys(ssl);
            if (code != WOLFSSL_SUCCESS) fail("update", wolfSSL_get_error(ssl, code));
            printf("updated\n");
        }
        if (wolfSSL_write(ssl, line, octets) != octets) fail("write", round);
        int read = wolfSSL_read(ssl, answer, sizeof answer - 1);
        if (read != octets || strcmp(line, answer) != 0) fail("answer", wolfSSL_get_error(ssl, read));
        printf("answered %s\n", answer);
    }
    wolfSSL_shutdown(ssl);
    printf("done\n");
}

static void server(WOLFSSL *ssl, struct sockaddr_in *address) {
    int fd = udp_socket();
    if (bind(fd, (struct sockaddr *)address, sizeof *address) != 0) fail("bind", 0);
    wolfSSL_set_fd(ssl, fd);
    if (wolfSSL_accept(ssl) != WOLFSSL_SUCCESS) fail("handshake", wolfSSL_get_error(ssl, -1));
    established(ssl);
    char octets[2048];
    for (int read; (read = wolfSSL_read(ssl, octets, sizeof octets)) > 0;)
        if (wolfSSL_write(ssl, octets, read) != read) fail("write", 0);
    printf("done\n");
}

int main(int count, char **arguments) {
    if (count < 4) fail("usage: client|server PORT SUITE [no-cid] [update]", count);
    for (int i = 4; i < count; i++) {
        if (strcmp(arguments[i], "no-cid") == 0) with_ids = 0;
        else if (strcmp(arguments[i], "update") == 0) updates = 1;
        else fail("unknown option", i);
    }
    suite = arguments[3];
    int is_13 = strncmp(suite, "TLS13-", 6) == 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    int serves = strcmp(arguments[1], "server") == 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[2]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    wolfSSL_Init();
    WOLFSSL_METHOD *method;
    if (is_13) method = serves ? wolfDTLSv1_3_server_method() : wolfDTLSv1_3_client_method();
    else method = serves ? wolfDTLSv1_2_server_method() : wolfDTLSv1_2_client_method();
    WOLFSSL_CTX *context = wolfSSL_CTX_new(method);
    if (is_13) {
        wolfSSL_CTX_set_psk_client_tls13_callback(context, client_key13);
        wolfSSL_CTX_set_psk_server_tls13_callback(context, server_key13);
        wolfSSL_CTX_no_ticket_TLSv13(context);
    } else {
        wolfSSL_CTX_set_psk_client_callback(context, client_key);
        wolfSSL_CTX_set_psk_server_callback(context, server_key);
    }
    if (wolfSSL_CTX_set_cipher_list(context, suite) != WOLFSSL_SUCCESS) fail("suite", 0);
    WOLFSSL *ssl = wolfSSL_new(context);
    if (with_ids) use_connection_id(ssl, serves ? "SRV" : "CLI");
    (serves ? server : client)(ssl, &address);
    return 0;
}
