//! What the web configuration file demands of a request, and adds to an answer.

use super::Client;
use super::limits::Refusals;
use super::logins::{Login, Logins};
use super::rate_limit::Bucket;
use super::reload::WebConfigFile;
use super::routes::{HEALTHY, text};
use super::web_config::WebConfig;
use crate::sample::Refusal;
use axum::body::Body;
use axum::http::header::{
    AUTHORIZATION, HeaderMap, HeaderValue, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Response, StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use ring::error::Unspecified;
use std::sync::Arc;
use std::time::Instant;

/// What stands between a connection and the routes.
pub(super) struct Gate {
    pub(super) file: Option<WebConfigFile>,
    logins: Logins,
    bucket: Bucket,
    refusals: Arc<Refusals>,
}

/// What the file says at the time of one request.
#[derive(Clone, Default)]
pub(super) struct Rules(Option<Arc<WebConfig>>);

impl Gate {
    pub(super) fn new(file: Option<WebConfigFile>, refusals: Arc<Refusals>) -> Result<Self, Unspecified> {
        Ok(Self { file, logins: Logins::new()?, bucket: Bucket::default(), refusals })
    }

    /// The rules for a request that comes now; `None` if there are some and they cannot be used.
    pub(super) async fn rules(&self) -> Option<Rules> {
        match &self.file {
            Some(file) => file.current().await.map(|config| Rules(Some(config))),
            None => Some(Rules(None)),
        }
    }

    /// The answer to a request without usable rules. It is never let through.
    pub(super) fn closed(&self) -> Response<Body> {
        self.refusals.add(Refusal::BadWebConfig);
        let body = "the web configuration file cannot be used; the exporter's log says why\n";
        text(StatusCode::INTERNAL_SERVER_ERROR, body)
    }

    /// The answer to a request that is not let through. Notes in `client` who has shown a password.
    pub(super) async fn refuse(
        &self,
        rules: &Rules,
        path: &str,
        headers: &HeaderMap,
        client: &mut Client,
    ) -> Option<Response<Body>> {
        let config = rules.0.as_ref()?;
        let credentials = if config.users.is_empty() { None } else { credentials(headers) };
        // Liveness probes and health checks ask for HEALTHY, and 429 would have a daemon killed because a client of it is busy. With
        // a password to be checked it counts all the same: else passwords could be guessed past the limit.
        let exempt = path == HEALTHY && credentials.is_none();
        if let Some(limit) = config.rate_limit
            && !exempt
            && !self.bucket.allows(limit, Instant::now())
        {
            self.refusals.add(Refusal::RateLimited);
            let body = "too many requests (rate_limit of the web configuration file)\n";
            return Some(text(StatusCode::TOO_MANY_REQUESTS, body));
        }
        if config.users.is_empty() {
            return None;
        }
        let login = match credentials {
            Some((user, password)) => self.logins.check(&config.users, &user, &password).await,
            None => Login::Wrong,
        };
        match login {
            Login::Right => {
                client.authenticated = true;
                None
            }
            Login::Wrong => {
                self.refusals.add(Refusal::Unauthorized);
                let mut response = text(StatusCode::UNAUTHORIZED, "a user and a password are needed\n");
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
                Some(response)
            }
            Login::Busy => {
                self.refusals.add(Refusal::OverWaitingLogins);
                let mut response =
                    text(StatusCode::SERVICE_UNAVAILABLE, "too many passwords are waiting to be checked\n");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                Some(response)
            }
        }
    }
}

impl Rules {
    /// Adds the headers that every answer has; those of the file count before ours.
    pub(super) fn decorate(&self, headers: &mut HeaderMap) {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        for (name, value) in self.0.iter().flat_map(|config| &config.headers) {
            headers.insert(name, value.clone());
        }
    }
}

/// User and password of basic authentication.
fn credentials(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut user = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = user.iter().position(|&byte| byte == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_authentication() {
        let credentials = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            credentials(&headers)
        };
        let pair = |user: &str, password: &str| Some((user.into(), password.into()));
        assert_eq!(credentials("Basic YTpi"), pair("a", "b"));
        assert_eq!(credentials("bAsIc  YTpi "), pair("a", "b"));
        assert_eq!(credentials("Basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(credentials("Basic Og=="), pair("", ""));
        assert_eq!(credentials("Basic //86/w=="), Some((vec![0xff, 0xff], vec![0xff])));
        for bad in ["Basic", "Basic ", "Basic YQ==", "Basic %%%%", "Basic YTpiOmM", "Bearer YTpi", "YTpi"] {
            assert_eq!(credentials(bad), None, "{bad}");
        }
        assert_eq!(super::credentials(&HeaderMap::new()), None);
    }
}
