package minidfs;

import static org.apache.hadoop.fs.CommonConfigurationKeysPublic.FS_DEFAULT_NAME_KEY;
import static org.apache.hadoop.fs.CommonConfigurationKeysPublic.HADOOP_RPC_PROTECTION;
import static org.apache.hadoop.fs.CommonConfigurationKeysPublic.HADOOP_SECURITY_AUTHENTICATION;
import static org.apache.hadoop.fs.CommonConfigurationKeysPublic.HADOOP_SECURITY_AUTHORIZATION;
import static org.apache.hadoop.fs.CommonConfigurationKeysPublic.HADOOP_SECURITY_GROUP_MAPPING;

import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.DFSConfigKeys;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSNNTopology;
import org.apache.hadoop.hdfs.client.HdfsClientConfigKeys;
import org.apache.hadoop.net.NetUtils;
import org.apache.hadoop.security.GroupMappingServiceProvider;
import org.apache.hadoop.security.NullGroupsMapping;
import org.apache.hadoop.security.UserGroupInformation;

/**
 * The name nodes and one data node, all on 127.0.0.1, and what its clients need to know of it in
 * {@code FOLDER/conf}. Its superuser is hdfs; the root folder is open to everybody.
 */
final class Cluster {
    private static final String NAME_SERVICE = "minicluster";
    private static final int NAME_NODES = 2;

    private final MiniDFSCluster cluster;
    private final boolean highlyAvailable;
    private MiniDFSCluster.DataNodeProperties stoppedDataNode;

    private Cluster(MiniDFSCluster cluster, boolean highlyAvailable) {
        this.cluster = cluster;
        this.highlyAvailable = highlyAvailable;
    }

    static Cluster start(Mode mode, Path folder, Kdc kdc) throws IOException {
        Configuration settings = new HdfsConfiguration();
        settings.setClass(
                HADOOP_SECURITY_GROUP_MAPPING,
                NullGroupsMapping.class,
                GroupMappingServiceProvider.class);
        settings.setBoolean(DFSConfigKeys.DFS_PERMISSIONS_ENABLED_KEY, true);
        settings.setLong(DFSConfigKeys.DFS_BLOCK_SIZE_KEY, 16 << 20);
        // files are written once here: an access time would only write to the edit log
        settings.setLong(DFSConfigKeys.DFS_NAMENODE_ACCESSTIME_PRECISION_KEY, 0);
        // a restarted name node waits for the data node to come back
        settings.setLong(DFSConfigKeys.DFS_HEARTBEAT_INTERVAL_KEY, 1);
        if (kdc != null) {
            secure(settings, kdc);
        }
        UserGroupInformation.setConfiguration(settings);
        boolean ha = mode == Mode.HA;
        Cluster cluster = new Cluster(build(settings, folder, ha), ha);
        if (ha) {
            cluster.cluster.transitionToActive(0);
        }
        cluster.cluster.waitActive();
        cluster.setMode("777", "/");
        cluster.writeClientConfiguration(settings, Files.createDirectories(folder.resolve("conf")));
        return cluster;
    }

    String uri() {
        return "hdfs://" + (highlyAvailable ? NAME_SERVICE : rpcAddress(0));
    }

    String httpAddress() {
        return NetUtils.getHostPortString(cluster.getNameNode(0).getHttpAddress());
    }

    /** The index of the active name node. */
    int active() throws IOException {
        for (int index = 0; index < cluster.getNumNameNodes(); index++) {
            if (isRunning(index) && cluster.getNameNode(index).isActiveState()) {
                return index;
            }
        }
        throw new IOException("no name node is active");
    }

    /** Makes the other name node the active one, or the one that runs if none is; its index. */
    int failOver() throws IOException {
        if (!highlyAvailable) {
            throw new IOException("there is a failover in ha mode only");
        }
        int next = isRunning(0) ? 0 : 1;
        if (isRunning(0) && isRunning(1)) {
            for (int index = 0; index < NAME_NODES; index++) {
                if (cluster.getNameNode(index).isActiveState()) {
                    cluster.transitionToStandby(index);
                    next = 1 - index;
                }
            }
        }
        cluster.transitionToActive(next);
        cluster.waitActive(next);
        return next;
    }

    void killNameNode(int index) {
        cluster.shutdownNameNode(index);
    }

    /** Starts it again on its old port; in ha mode as a standby. */
    void restartNameNode(int index) throws IOException {
        cluster.restartNameNode(index, !highlyAvailable);
    }

    void killDataNode() {
        stoppedDataNode = cluster.stopDataNode(0);
    }

    /** Starts it again on its old port, whether or not it runs. */
    void restartDataNode() throws IOException {
        if (stoppedDataNode == null) {
            killDataNode();
        }
        cluster.restartDataNode(stoppedDataNode, true);
        stoppedDataNode = null;
        cluster.waitActive(active());
    }

    void setMode(String octal, String path) throws IOException {
        files().setPermission(new org.apache.hadoop.fs.Path(path), new FsPermission(octal));
    }

    void setOwner(String user, String group, String path) throws IOException {
        files().setOwner(new org.apache.hadoop.fs.Path(path), user, group);
    }

    private boolean isRunning(int index) {
        return cluster.getNameNode(index) != null;
    }

    private DistributedFileSystem files() throws IOException {
        return cluster.getFileSystem(active());
    }

    private String rpcAddress(int index) {
        InetSocketAddress address = cluster.getNameNode(index).getNameNodeAddress();
        return "127.0.0.1:" + address.getPort();
    }

    private static MiniDFSCluster build(Configuration settings, Path folder, boolean ha)
            throws IOException {
        MiniDFSCluster.Builder builder =
                new MiniDFSCluster.Builder(settings, folder.resolve("dfs").toFile());
        builder.numDataNodes(1).storagesPerDatanode(1).checkExitOnShutdown(false);
        if (ha) {
            MiniDFSNNTopology.NSConf service = new MiniDFSNNTopology.NSConf(NAME_SERVICE);
            for (int index = 0; index < NAME_NODES; index++) {
                service.addNN(new MiniDFSNNTopology.NNConf("nn" + index));
            }
            builder.nnTopology(new MiniDFSNNTopology().addNameservice(service));
        }
        return builder.build();
    }

    private static void secure(Configuration settings, Kdc kdc) {
        settings.set(HADOOP_SECURITY_AUTHENTICATION, "kerberos");
        settings.setBoolean(HADOOP_SECURITY_AUTHORIZATION, true);
        settings.set(HADOOP_RPC_PROTECTION, "authentication");
        settings.set(HdfsClientConfigKeys.DFS_DATA_TRANSFER_PROTECTION_KEY, "authentication");
        settings.setBoolean(DFSConfigKeys.DFS_BLOCK_ACCESS_TOKEN_ENABLE_KEY, true);
        // data transfer is protected by SASL, so that no privileged port is needed
        settings.setBoolean(DFSConfigKeys.IGNORE_SECURE_PORTS_FOR_TESTING_KEY, true);
        String keytab = kdc.serviceKeytab().toString();
        String principal = kdc.servicePrincipal();
        settings.set(DFSConfigKeys.DFS_NAMENODE_KEYTAB_FILE_KEY, keytab);
        settings.set(DFSConfigKeys.DFS_NAMENODE_KERBEROS_PRINCIPAL_KEY, principal);
        settings.set(DFSConfigKeys.DFS_DATANODE_KEYTAB_FILE_KEY, keytab);
        settings.set(DFSConfigKeys.DFS_DATANODE_KERBEROS_PRINCIPAL_KEY, principal);
    }

    private void writeClientConfiguration(Configuration settings, Path folder) throws IOException {
        Configuration core = new Configuration(false);
        core.set(FS_DEFAULT_NAME_KEY, uri());
        copy(settings, core, HADOOP_SECURITY_AUTHENTICATION);
        copy(settings, core, HADOOP_RPC_PROTECTION);
        write(core, folder.resolve("core-site.xml"));

        Configuration hdfs = new Configuration(false);
        copy(settings, hdfs, HdfsClientConfigKeys.DFS_DATA_TRANSFER_PROTECTION_KEY);
        copy(settings, hdfs, DFSConfigKeys.DFS_NAMENODE_KERBEROS_PRINCIPAL_KEY);
        if (highlyAvailable) {
            hdfs.set(DFSConfigKeys.DFS_NAMESERVICES, NAME_SERVICE);
            String[] names = new String[NAME_NODES];
            for (int index = 0; index < NAME_NODES; index++) {
                names[index] = "nn" + index;
                hdfs.set(
                        HdfsClientConfigKeys.DFS_NAMENODE_RPC_ADDRESS_KEY
                                + "."
                                + NAME_SERVICE
                                + "."
                                + names[index],
                        rpcAddress(index));
            }
            hdfs.setStrings(DFSConfigKeys.DFS_HA_NAMENODES_KEY_PREFIX + "." + NAME_SERVICE, names);
            hdfs.set(
                    HdfsClientConfigKeys.Failover.PROXY_PROVIDER_KEY_PREFIX + "." + NAME_SERVICE,
                    "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider");
        }
        write(hdfs, folder.resolve("hdfs-site.xml"));
    }

    private static void copy(Configuration from, Configuration to, String key) {
        if (from.get(key) != null) {
            to.set(key, from.get(key));
        }
    }

    private static void write(Configuration settings, Path file) throws IOException {
        try (OutputStream stream = Files.newOutputStream(file)) {
            settings.writeXml(stream);
        }
    }
}
