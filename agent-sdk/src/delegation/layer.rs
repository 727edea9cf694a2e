//! The layer around a service: a request reaches the service only with a delegation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};

use super::Delegation;
use super::body::DelegationBody;
use super::proof::{Asked, Tokens, prove};
use super::refusal::speaks_grpc;
use crate::peers::{Authorize, Verifier};

/// Wraps any service over `http::Request`, such as those of tonic, axum and hyper. See [`delegation`](super).
#[derive(Clone, Debug)]
pub struct DelegationLayer(Arc<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    verifier: Verifier,
    authorize: Authorize,
    tokens: Tokens,
}

impl DelegationLayer {
    /// Allows every agent of our own trust domain, by its certificate: the [`Peer`](crate::peers::Peer) that
    /// [`listen`](crate::listen) puts into the request's extensions. Requests with bearer tokens are refused.
    pub fn new(verifier: Verifier) -> DelegationLayer {
        let authorize = Authorize::agents(verifier.own().clone());
        DelegationLayer(Arc::new(Rule { verifier, authorize, tokens: Tokens::Refused }))
    }

    /// Allows these agents, by certificate or token. For an agent of another trust domain, that trust domain vouches for the user
    /// and the scopes.
    #[must_use]
    pub fn with_authorize(self, authorize: Authorize) -> DelegationLayer {
        DelegationLayer(Arc::new(Rule { authorize, ..Rule::clone(&self.0) }))
    }

    /// Whether bearer tokens are accepted, and for which audience.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> DelegationLayer {
        DelegationLayer(Arc::new(Rule { tokens, ..Rule::clone(&self.0) }))
    }
}

impl<S> Layer<S> for DelegationLayer {
    type Service = DelegationService<S>;

    fn layer(&self, inner: S) -> DelegationService<S> {
        DelegationService { inner, rule: Arc::clone(&self.0) }
    }
}

/// A service wrapped in a [`DelegationLayer`].
#[derive(Clone, Debug)]
pub struct DelegationService<S> {
    inner: S,
    rule: Arc<Rule>,
}

type Answer<R, E> = Pin<Box<dyn Future<Output = Result<Response<DelegationBody<R>>, E>> + Send>>;

impl<S, B, R> Service<Request<B>> for DelegationService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<DelegationBody<R>>;
    type Error = S::Error;
    type Future = Answer<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // INVARIANT: a delegation in the extensions was verified here; a caller of the layer cannot bring one.
        request.extensions_mut().remove::<Delegation>();
        let Rule { verifier, authorize, tokens } = &*self.rule;
        let asked = Asked {
            extensions: request.extensions(),
            headers: request.headers(),
            method: request.method(),
            path: request.uri().path(),
        };
        match prove(verifier, authorize, tokens, &asked) {
            Ok(delegation) => {
                request.extensions_mut().insert(delegation.clone());
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let response = answer.await?;
                    let grpc = speaks_grpc(response.headers());
                    Ok(response.map(|body| DelegationBody::new(body, Some(delegation), grpc)))
                })
            }
            Err(refusal) => {
                let resource =
                    if let Tokens::Resource(resource) = tokens { Some((&**resource, verifier.clock().seconds())) } else { None };
                let response = refusal.response(request.headers(), resource).map(|body| DelegationBody::new(body, None, false));
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}
