package minidfs;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;

/**
 * A real HDFS for tests, steered over standard input and output.
 *
 * <p>Usage: {@code Main MODE FOLDER} with MODE plain, ha or kerberos. It prints
 * {@code ready URI HTTP_ADDRESS} and then answers each line of standard input by one line, {@code
 * ok …} or {@code error …}. It ends when its standard input does and so never outlives the test
 * process. Nothing else goes to standard output.
 */
final class Main {
    private Main() {}

    public static void main(String[] arguments) {
        PrintStream answers = System.out;
        System.setOut(System.err);
        try {
            run(arguments, answers);
        } catch (Exception fault) {
            fault.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
        // nobody wants the folder's content any more: an orderly shutdown would only take time
        Runtime.getRuntime().halt(0);
    }

    private static void run(String[] arguments, PrintStream answers) throws Exception {
        if (arguments.length != 2) {
            throw new IllegalArgumentException("usage: MODE FOLDER");
        }
        Mode mode = Mode.valueOf(arguments[0].toUpperCase(Locale.ROOT));
        Path folder = Files.createDirectories(Path.of(arguments[1]));
        Kdc kdc = mode == Mode.KERBEROS ? Kdc.start(folder) : null;
        Cluster cluster = Cluster.start(mode, folder, kdc);
        answers.println("ready " + cluster.uri() + " " + cluster.httpAddress());
        BufferedReader commands =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String answer;
            try {
                answer = "ok " + obey(cluster, kdc, line.strip().split(" ", 4));
            } catch (Exception fault) {
                fault.printStackTrace();
                answer = "error " + fault;
            }
            answers.println(answer.replaceAll("\\s+", " ").strip());
        }
    }

    private static String obey(Cluster cluster, Kdc kdc, String[] words) throws Exception {
        switch (words[0]) {
            case "active":
                return Integer.toString(cluster.active());
            case "failover":
                return Integer.toString(cluster.failOver());
            case "kill-namenode":
                cluster.killNameNode(Integer.parseInt(words[1]));
                return "";
            case "restart-namenode":
                cluster.restartNameNode(Integer.parseInt(words[1]));
                return "";
            case "kill-datanodes":
                cluster.killDataNode();
                return "";
            case "restart-datanodes":
                cluster.restartDataNode();
                return "";
            case "chmod": // MODE PATH
                cluster.setMode(words[1], rest(words, 2));
                return "";
            case "chown": // USER GROUP PATH
                cluster.setOwner(words[1], words[2], rest(words, 3));
                return "";
            case "add-principal": // NAME KEYTAB
                if (kdc == null) {
                    throw new IOException("there are principals in kerberos mode only");
                }
                kdc.addPrincipal(words[1], Path.of(rest(words, 2)));
                return "";
            default:
                throw new IllegalArgumentException("no such command: " + words[0]);
        }
    }

    private static String rest(String[] words, int from) {
        return String.join(" ", Arrays.asList(words).subList(from, words.length));
    }
}
