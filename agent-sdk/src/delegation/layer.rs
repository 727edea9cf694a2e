//! Stands before a service: no request reaches it but with a delegation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};

use super::Delegation;
use super::body::DelegationBody;
use super::proof::{Tokens, prove};
use super::refusal::speaks_grpc;
use crate::peers::{Authorize, Verifier};

/// Before any service over `http::Request`: of tonic, axum or hyper. See [`delegation`](super).
#[derive(Clone, Debug)]
pub struct DelegationLayer(Arc<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    verifier: Verifier,
    authorize: Authorize,
    tokens: Tokens,
}

impl DelegationLayer {
    /// For every agent of our own trust domain, by its certificate: the [`Peer`](crate::peers::Peer) in the request's
    /// extensions, which [`listen`](crate::listen) puts there. Bearer tokens are refused.
    pub fn new(verifier: Verifier) -> DelegationLayer {
        let authorize = Authorize::agents(verifier.own().clone());
        DelegationLayer(Arc::new(Rule { verifier, authorize, tokens: Tokens::Refused }))
    }

    /// For these agents, by whatever credential. What an agent of another trust domain says of its user and its scopes is
    /// that trust domain's word.
    #[must_use]
    pub fn with_authorize(self, authorize: Authorize) -> DelegationLayer {
        DelegationLayer(Arc::new(Rule { authorize, ..Rule::clone(&self.0) }))
    }

    /// What bearer tokens are worth.
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

/// A service with [`DelegationLayer`] before it.
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
        // INVARIANT: only what is proved here stands there.
        request.extensions_mut().remove::<Delegation>();
        let Rule { verifier, authorize, tokens } = &*self.rule;
        match prove(verifier, authorize, tokens, (request.extensions(), request.headers())) {
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
                let response = refusal.response(request.headers()).map(|body| DelegationBody::new(body, None, false));
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}
