/* A foreign DTLS peer with PSK and Connection ID, on wolfSSL. For tests only.
 *
 *   wolfssl-peer client PORT SUITE   each round from another UDP port than the last: the Connection ID has to carry it
 *   wolfssl-peer server PORT SUITE   sends back what comes
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

static unsigned int server_key(WOLFSSL *ssl, const char *identity, unsigned char *key, unsigned int key_max) {
    (void)ssl;
    if (strcmp(identity, IDENTITY) != 0 || key_max < KEY_OCTETS) return 0;
    memset(key, 0x5a, KEY_OCTETS);
    return KEY_OCTETS;
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
    wolfSSL_dtls_cid_get_tx_size(ssl, &sent);
    wolfSSL_dtls_cid_get_rx_size(ssl, &received);
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
        wolfSSL_set_fd(ssl, fds[round % 2]);
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
    if (count != 4) fail("usage: client|server PORT SUITE", count);
    setvbuf(stdout, NULL, _IONBF, 0);
    int serves = strcmp(arguments[1], "server") == 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[2]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    wolfSSL_Init();
    WOLFSSL_CTX *context = wolfSSL_CTX_new(serves ? wolfDTLSv1_2_server_method() : wolfDTLSv1_2_client_method());
    wolfSSL_CTX_set_psk_client_callback(context, client_key);
    wolfSSL_CTX_set_psk_server_callback(context, server_key);
    if (wolfSSL_CTX_set_cipher_list(context, arguments[3]) != WOLFSSL_SUCCESS) fail("suite", 0);
    WOLFSSL *ssl = wolfSSL_new(context);
    use_connection_id(ssl, serves ? "SRV" : "CLI");
    (serves ? server : client)(ssl, &address);
    return 0;
}
