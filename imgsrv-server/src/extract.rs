//! Who is asking: one extractor for each right that a route can need.
//!
//! As the first extractor of a handler it decides before path and body are looked at: 401, then 403, then 400.

use std::sync::Arc;

use imgsrv_core::model::{Actor, Scope, VersionState};
use poem::http::header::AUTHORIZATION;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::attempts::FailedAttempts;
use crate::auth::{Action, AuthError, Authenticator, Principal};
use crate::problem::Problem;

/// The name of the security scheme in the specification.
const SCHEME: &str = "bearer";

/// Somebody who may upload, describe and publish.
#[derive(Clone, Debug)]
pub(crate) struct CanWriteContent(Principal);

impl CanWriteContent {
    pub(crate) fn actor(&self) -> Actor {
        self.0.actor()
    }
}

/// Somebody who may manage principals, tokens and rules.
#[derive(Clone, Debug)]
pub(crate) struct CanManageAuth(Principal);

impl CanManageAuth {
    pub(crate) fn actor(&self) -> Actor {
        self.0.actor()
    }
}

/// Anybody. Whoever may also write sees more; a credential that is no use here is ignored.
#[derive(Clone, Debug)]
pub(crate) struct Reader(Result<CanWriteContent, Problem>);

impl Reader {
    /// What the reader may know of.
    pub(crate) fn scope(&self) -> Scope {
        if self.0.is_ok() { Scope::All } else { Scope::Published }
    }

    /// Insists on a writer, where the request turns out to need one.
    fn require_writer(&self) -> Result<(), Problem> {
        self.0.as_ref().map(|_| ()).map_err(Clone::clone)
    }
}

/// A reader of versions, who must be a writer when `state` asks for others than published ones.
#[derive(Clone, Debug)]
pub(crate) struct VersionsReader(pub(crate) Reader);

/// # Errors
/// 401 without a valid credential, 429 when there were many such, 503 when it cannot be checked now.
async fn authenticate(request: &Request) -> Result<Principal, Problem> {
    let Some(authenticator) = request.data::<Arc<dyn Authenticator>>() else {
        tracing::error!("the server was put together without an authenticator");
        return Err(Problem::internal());
    };
    authenticator.authenticate(request.headers()).await.map_err(|error| match error {
        AuthError::Unauthenticated(why) => refused(request, why),
        AuthError::Unavailable(error) => error.into(),
    })
}

/// What whoever proved no identity is told. Who did not try to has no part in how often it failed.
fn refused(request: &Request, why: String) -> Problem {
    let tried = request.headers().contains_key(AUTHORIZATION);
    let from = request.remote_addr().as_socket_addr().filter(|_| tried);
    let counted = request.data::<FailedAttempts>().zip(from).map(|(attempts, from)| attempts.count(from.ip()));
    match counted {
        Some(Err(wait)) => Problem::too_many_attempts(wait),
        _ => Problem::unauthorized(why),
    }
}

/// # Errors
/// As [`authenticate`], and 403 when the principal may not do this.
async fn authorize(request: &Request, action: Action) -> Result<Principal, Problem> {
    let principal = authenticate(request).await?;
    if principal.may(action) { Ok(principal) } else { Err(Problem::forbidden(action.name())) }
}

fn register_scheme(registry: &mut Registry) {
    registry.create_security_scheme(
        SCHEME,
        MetaSecurityScheme {
            ty: "http",
            description: Some("An API token, or a token of an issuer that a provisioning rule admits."),
            name: None,
            key_in: None,
            scheme: Some("bearer"),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        },
    );
}

macro_rules! extractor {
    ($name:ident, optional: $optional:literal, |$request:ident| $extract:expr) => {
        impl<'a> ApiExtractor<'a> for $name {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut Registry) {
                register_scheme(registry);
            }

            fn security_schemes() -> Vec<&'static str> {
                vec![SCHEME]
            }

            fn has_security_fallback() -> bool {
                $optional
            }

            async fn from_request(
                $request: &'a Request,
                _body: &mut RequestBody,
                _options: ExtractParamOptions<()>,
            ) -> Result<Self> {
                $extract
            }
        }
    };
}

extractor!(CanWriteContent, optional: false, |request| {
    Ok(Self(authorize(request, Action::WriteContent).await?))
});

extractor!(CanManageAuth, optional: false, |request| {
    Ok(Self(authorize(request, Action::ManageAuth).await?))
});

/// # Errors
/// A credential that cannot be checked now may be a writer's: answering as to a stranger would deny what is there.
async fn reader(request: &Request) -> Result<Reader, Problem> {
    match authorize(request, Action::WriteContent).await {
        Err(problem) if problem.is_server_error() => Err(problem),
        outcome => Ok(Reader(outcome.map(CanWriteContent))),
    }
}

extractor!(Reader, optional: true, |request| Ok(reader(request).await?));

extractor!(VersionsReader, optional: true, |request| {
    let reader = reader(request).await?;
    let query: Vec<(String, String)> = request.params().unwrap_or_default();
    let asks_for = |state: &str| state.parse().is_ok_and(|state: VersionState| state != VersionState::Published);
    if query.iter().any(|(name, value)| name == "state" && asks_for(value)) {
        reader.require_writer()?;
    }
    Ok(Self(reader))
});

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use imgsrv_core::Error;
    use poem::http::{HeaderMap, StatusCode};

    use super::*;

    /// The token is the name of the only action that its holder may do.
    struct ByName;

    #[async_trait]
    impl Authenticator for ByName {
        async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
            let actions = match headers.get("authorization").and_then(|value| value.to_str().ok()) {
                Some("Bearer content.write") => vec![Action::WriteContent],
                Some("Bearer auth.manage") => vec![Action::ManageAuth],
                Some("Bearer broken") => return Err(AuthError::Unavailable(Error::StorageFull)),
                _ => return Err(AuthError::Unauthenticated("no token".to_owned())),
            };
            Ok(Principal { id: "p".to_owned(), actions })
        }
    }

    async fn extract<T: for<'a> ApiExtractor<'a, ParamType = ()>>(token: &str) -> Result<T, StatusCode> {
        let mut request = Request::builder().header("authorization", format!("Bearer {token}")).finish();
        request.set_data(Arc::new(ByName) as Arc<dyn Authenticator>);
        let (request, mut body) = request.split();
        T::from_request(&request, &mut body, ExtractParamOptions::default()).await.map_err(|error| error.status())
    }

    #[tokio::test]
    async fn a_right_needs_its_own_action() {
        assert!(extract::<CanWriteContent>("content.write").await.is_ok());
        assert_eq!(extract::<CanWriteContent>("auth.manage").await.err(), Some(StatusCode::FORBIDDEN));
        assert_eq!(extract::<CanWriteContent>("garbage").await.err(), Some(StatusCode::UNAUTHORIZED));
        assert!(extract::<CanManageAuth>("auth.manage").await.is_ok());
        assert_eq!(extract::<CanManageAuth>("content.write").await.err(), Some(StatusCode::FORBIDDEN));
    }

    #[tokio::test]
    async fn a_reader_is_anybody() {
        assert_eq!(extract::<Reader>("content.write").await.unwrap().scope(), Scope::All);
        assert_eq!(extract::<Reader>("auth.manage").await.unwrap().scope(), Scope::Published);
        let stranger = extract::<Reader>("garbage").await.unwrap();
        assert_eq!(stranger.scope(), Scope::Published);
        assert!(stranger.require_writer().is_err());
        assert_eq!(extract::<Reader>("broken").await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    }
}
