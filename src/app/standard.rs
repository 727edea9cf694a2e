//! The services that gRPC's own tools expect: health of each service by its name, and reflection.

use std::collections::BTreeSet;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::doors::grpc::{self, METHODS};
use crate::process;

/// Adds health, and reflection if it is asked for. The task that is returned reports every service as not serving from `stop` on.
pub(super) async fn add(
    routes: Routes,
    reflection: bool,
    message: usize,
    mut stop: watch::Receiver<bool>,
) -> Result<(Routes, JoinHandle<()>), String> {
    let (health, service) = tonic_health::server::health_reporter();
    let own = METHODS.iter().filter_map(|method| method.name.split_once('/')).map(|(service, _)| format!("mayfly.v1.{service}"));
    // The empty name is the server as a whole.
    let names: BTreeSet<String> = own.chain([String::new()]).collect();
    for name in &names {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let mut routes = routes.add_service(service.max_decoding_message_size(message));
    if reflection {
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(grpc::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Older tools know the alpha version alone.
        let (now, alpha) = (describe().build_v1(), describe().build_v1alpha());
        routes = routes
            .add_service(now.map_err(|e| e.to_string())?.max_decoding_message_size(message))
            .add_service(alpha.map_err(|e| e.to_string())?.max_decoding_message_size(message));
    }
    let stopping = process::task("health", async move {
        let _ = stop.wait_for(|stop| *stop).await;
        for name in &names {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
    });
    Ok((routes, stopping))
}
