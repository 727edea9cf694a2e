//! The SPIFFE bundle endpoint, which serves the bundle over HTTPS to anybody (clauses FE-1 to FE-9).

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;

use crate::publish::Publisher;

/// The route `GET /`, which serves the newest bundle (FE-4).
pub fn router(publisher: Publisher) -> Router {
    let document = move || {
        let document = publisher.now().document.clone();
        async move { ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], document) }
    };
    Router::new().route("/", get(document))
}
