// A service that verifies tokens by the issuer's keys alone, with nimbus-jose-jwt: Service JWKS ISSUER PORT. It is put behind a proxy that asks the
// guard, and is also asked without one.

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.Set;
import java.util.concurrent.Executors;

public class Service {
    public static void main(String[] given) throws Exception {
        var keys = JWKSourceBuilder.create(URI.create(given[0]).toURL()).build();
        var tokens = new DefaultJWTProcessor<SecurityContext>();
        tokens.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(JOSEObjectType.JWT));
        tokens.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.ES256, keys));
        var issuer = new JWTClaimsSet.Builder().issuer(given[1]).build();
        tokens.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>("https://search.example", issuer, Set.of("sub", "exp")));
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(given[2])), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            var said = exchange.getRequestHeaders().getFirst("Authorization");
            var status = 401;
            try {
                if (said != null && said.startsWith("Bearer ")) {
                    tokens.process(said.substring(7), null);
                    status = 200;
                }
            } catch (Exception refused) {
                System.err.println(refused);
            }
            exchange.sendResponseHeaders(status, -1);
            exchange.close();
        });
        server.start();
    }
}
