// A stock java-spiffe program under `mayfly run`: the Workload API until it is cut, or mTLS with another by its security provider.

import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.TrustDomain;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import sun.misc.Signal;

public class Client {
    static final String AUDIENCE = "https://search.example";
    static final TrustDomain DOMAIN = TrustDomain.parse("dev.mayfly.test");

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "whole" -> whole();
            case "serve" -> serve(port(args[1]));
            case "dial" -> dial(port(args[1]));
            default -> require(false, args[0]);
        }
        System.exit(0);
    }

    static int port(String address) {
        return Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
    }

    // Its members are not asked for their ids: whoever the bundle of the trust domain proves may come.
    static SSLContext tls() throws Exception {
        var options = SslContextOptions.builder().x509Source(DefaultX509Source.newSource()).acceptAnySpiffeId();
        return SpiffeSslContextFactory.getSslContext(options.build());
    }

    static void serve(int port) throws Exception {
        var factory = tls().getServerSocketFactory();
        var listener = (SSLServerSocket) factory.createServerSocket(port, 16, InetAddress.getLoopbackAddress());
        listener.setNeedClientAuth(true);
        Files.writeString(Path.of("java.serves"), "\n");
        while (true) {
            var socket = (SSLSocket) listener.accept();
            new Thread(() -> answer(socket)).start();
        }
    }

    static void answer(SSLSocket socket) {
        try (socket) {
            socket.getOutputStream().write(("java heard " + line(socket) + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException error) {
            System.err.println("java: " + error);
        }
    }

    static void dial(int port) throws Exception {
        try (var socket = (SSLSocket) tls().getSocketFactory().createSocket(InetAddress.getLoopbackAddress(), port)) {
            socket.getOutputStream().write("java\n".getBytes(StandardCharsets.UTF_8));
            String answer = line(socket);
            require(answer != null && answer.endsWith("java"), answer);
            System.out.println(answer);
        }
    }

    static String line(SSLSocket socket) throws IOException {
        return new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8)).readLine();
    }

    static void whole() throws Exception {
        // The cut is read from the API; the SIGTERM that comes with it is not what ends us.
        LinkedBlockingQueue<String> cut = new LinkedBlockingQueue<>();
        Signal.handle(new Signal("TERM"), signal -> cut.add("term"));
        WorkloadApiClient client = DefaultWorkloadApiClient.newClient();
        LinkedBlockingQueue<X509Context> seen = new LinkedBlockingQueue<>();
        client.watchX509Context(new Watcher<>() {
            public void onUpdate(X509Context context) {
                seen.add(context);
            }

            public void onError(Throwable error) {
                System.err.println("java: " + error);
            }
        });
        Set<String> ids = new HashSet<>();
        for (int rotation = 0; rotation < 4; rotation++) {
            X509Context context = seen.poll(20, TimeUnit.SECONDS);
            require(context != null, "no rotation");
            ids.add(context.getDefaultSvid().getSpiffeId().toString());
            context.getX509BundleSet().getBundleForTrustDomain(DOMAIN);
        }
        JwtSvid token = client.fetchJwtSvid(AUDIENCE);
        JwtSvid held = client.validateJwtSvid(token.getToken(), AUDIENCE);
        JwtSvid local = JwtSvid.parseAndValidate(token.getToken(), client.fetchJwtBundles(), Set.of(AUDIENCE));
        for (JwtSvid svid : new JwtSvid[] {token, held, local}) {
            ids.add(svid.getSpiffeId().toString());
        }
        require(ids.size() == 1, ids.toString());
        Files.writeString(Path.of("java.rotated"), ids.iterator().next() + "\n");
        require(cut.poll(120, TimeUnit.SECONDS) != null, "no cut");
        try {
            client.fetchX509Context();
            require(false, "served after the cut");
        } catch (Exception error) {
            Throwable cause = error;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            require(cause.getMessage().contains("PERMISSION_DENIED: no identity issued"), cause.toString());
            Files.writeString(Path.of("java.cut"), cause.getMessage() + "\n");
        }
    }

    static void require(boolean holds, String otherwise) {
        if (!holds) {
            System.err.println("java: " + otherwise);
            System.exit(1);
        }
    }
}
