//! The OpenAPI 3.1 document at `/openapi.json`, generated from the handlers and the types that they take and give.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, RefOr, Schema};
use utoipa::{Modify, OpenApi, PartialSchema, ToSchema};

use super::problem::Kind;
use super::requests::TAKES;
use super::{RecordingPage, events, http, media, problem, requests};
use crate::call::view::CallView;
use crate::record::metadata::Recording;

/// The names of requests: those of [`TAKES`].
pub struct RequestName;

impl PartialSchema for RequestName {
    fn schema() -> RefOr<Schema> {
        let names = TAKES.iter().map(|takes| takes.name);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl ToSchema for RequestName {
    fn name() -> Cow<'static, str> {
        "RequestName".into()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "stickytape",
        description = "Live calls, requests, events and recordings. Refusals are problem+json (RFC 9457). Every answer \
            has an X-Request-Id, which the server's log names too. One client may make 100 requests a second (200 at \
            once); beyond that it gets 429 with Retry-After.",
    ),
    paths(
        http::alive,
        http::ready,
        http::metrics,
        http::calls,
        http::call,
        requests::request,
        events::server_sent,
        events::web_socket,
        http::recordings,
        http::recording,
        http::delete,
        media::media,
    ),
    components(schemas(problem::Body, CallView, Recording, RecordingPage, RequestName)),
    modifiers(&Common),
    tags(
        (name = "server", description = "Is it alive, is it ready, how is it"),
        (name = "calls", description = "Live calls, and what is asked of them"),
        (name = "events", description = "What happens"),
        (name = "recordings", description = "What was recorded"),
    ),
    security(("token" = [])),
)]
struct Document;

/// What every path has: the token, and the refusals that come before a handler.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The content of `api.token-file`; not needed when the server has none."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        for (path, item) in &mut document.paths.paths {
            if http::PROBES.contains(&path.as_str()) {
                continue;
            }
            let operations = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                for kind in [Kind::Unauthorized, Kind::Forbidden, Kind::TooManyRequests] {
                    let (status, code, title) = kind.row();
                    let refusal = openapi::ResponseBuilder::new()
                        .description(format!("{code}: {title}"))
                        .content(
                            "application/problem+json",
                            openapi::Content::new(Some(openapi::Ref::from_schema_name("Problem"))),
                        )
                        .build();
                    operation.responses.responses.insert(status.as_str().to_owned(), refusal.into());
                }
            }
        }
    }
}

/// The document as JSON.
pub fn document() -> openapi::OpenApi {
    Document::openapi()
}
