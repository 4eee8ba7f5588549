package minidfs;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.hadoop.minikdc.MiniKdc;

/**
 * A key distribution centre of one realm on 127.0.0.1, with a keytab for the cluster and one for
 * an ordinary user. Its krb5.conf serves Java's clients and MIT's alike.
 */
final class Kdc {
    /** The cluster's own principal; its short name is the superuser. */
    static final String SERVICE = "hdfs/localhost";
    static final String USER = "sluice";

    private static final String DAY_S = "86400";

    private final MiniKdc kdc;
    private final Path serviceKeytab;

    private Kdc(MiniKdc kdc, Path serviceKeytab) {
        this.kdc = kdc;
        this.serviceKeytab = serviceKeytab;
    }

    /** Starts it; tickets live for a day, or for as long as a client asks. */
    static Kdc start(Path folder) throws Exception {
        Properties settings = MiniKdc.createConf();
        settings.setProperty(MiniKdc.KDC_BIND_ADDRESS, "127.0.0.1");
        settings.setProperty(MiniKdc.MAX_TICKET_LIFETIME, DAY_S);
        settings.setProperty(MiniKdc.MIN_TICKET_LIFETIME, "1");
        MiniKdc kdc = new MiniKdc(settings, folder.resolve("kdc").toFile());
        kdc.start();
        Path krb5Conf = folder.resolve("krb5.conf");
        Files.writeString(krb5Conf, krb5Conf(kdc));
        System.setProperty(MiniKdc.JAVA_SECURITY_KRB5_CONF, krb5Conf.toString());
        Path serviceKeytab = folder.resolve("hdfs.keytab");
        kdc.createPrincipal(serviceKeytab.toFile(), SERVICE);
        kdc.createPrincipal(folder.resolve("sluice.keytab").toFile(), USER);
        return new Kdc(kdc, serviceKeytab);
    }

    String servicePrincipal() {
        return SERVICE + "@" + kdc.getRealm();
    }

    Path serviceKeytab() {
        return serviceKeytab;
    }

    void addPrincipal(String name, Path keytab) throws Exception {
        kdc.createPrincipal(keytab.toFile(), name);
    }

    private static String krb5Conf(MiniKdc kdc) {
        return String.join(
                "\n",
                "[libdefaults]",
                "    default_realm = " + kdc.getRealm(),
                "    udp_preference_limit = 1",
                "    ticket_lifetime = " + DAY_S + "s",
                "    clockskew = 5",
                "    dns_lookup_kdc = false",
                "    dns_lookup_realm = false",
                "    dns_canonicalize_hostname = false",
                "    rdns = false",
                "[realms]",
                "    " + kdc.getRealm() + " = {",
                "        kdc = 127.0.0.1:" + kdc.getPort(),
                "    }",
                "");
    }
}
