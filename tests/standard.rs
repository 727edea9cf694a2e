//! What gRPC's own tools expect of a server: health of each service by its name, and reflection in both versions.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use mayfly::doors::grpc::METHODS;
use support::{Dev, channel};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn health_knows_each_service_by_its_name() {
    let dev = Dev::start();
    let mut client = HealthClient::new(channel(&dev, None).await);
    let services = METHODS.iter().map(|method| format!("mayfly.v1.{}", method.name.split_once('/').unwrap().0));
    for service in services.chain([String::new()]) {
        let got = client.check(HealthCheckRequest { service: service.clone() }).await.unwrap().into_inner();
        assert_eq!(got.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = client.check(HealthCheckRequest { service: "mayfly.v1.Nothing".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

/// The names that reflection lists, by one of its versions.
macro_rules! listed {
    ($dev:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new(channel($dev, None).await);
        let request = tonic_reflection::pb::$version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        match answers.message().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => list.service.into_iter().map(|s| s.name).collect::<Vec<_>>(),
            _ => vec![],
        }
    }};
}

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    let dev = Dev::start();
    for names in [listed!(&dev, v1), listed!(&dev, v1alpha)] {
        for method in METHODS {
            let service = format!("mayfly.v1.{}", method.name.split_once('/').unwrap().0);
            assert!(names.contains(&service), "{service} not in {names:?}");
        }
        assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    }
}
