package minidfs;

/** One name node without security; two of one name service; one that wants Kerberos tickets. */
enum Mode {
    PLAIN,
    HA,
    KERBEROS
}
