"""Adds TLS by secret discovery to the configuration that `mayfly deploy envoy` prints."""

import os
import sys

secret = """sds_config: { resource_api_version: V3, api_config_source: { api_type: GRPC, transport_api_version: V3, grpc_services: [{ envoy_grpc: { cluster_name: sds } }] } }"""
tls = f"""          transport_socket:
            name: tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                tls_certificate_sds_secret_configs: [{{ name: default, {secret} }}]
                validation_context_sds_secret_config: {{ name: ROOTCA, {secret} }}
"""
cluster = f"""    - name: sds
      connect_timeout: 1s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      load_assignment: {{ cluster_name: sds, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ pipe: {{ path: "{os.environ['SDS']}" }} }} }} }}] }}] }}
"""
print(sys.stdin.read().replace("  clusters:\n", tls + "  clusters:\n" + cluster, 1), end="")
