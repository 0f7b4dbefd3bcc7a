//! The OpenAPI 3.1 document at `/openapi.json`, generated from the handlers and the types that they take and give.

use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{Object, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, ContentBuilder, RefOr, Schema};
use utoipa::{Modify, OpenApi};

use super::problem::Kind;
use super::requests::{MAKE_CALL, Need, TAKES, Takes};
use super::{RecordingPage, agents, events, http, media, problem, reporting, requests, supervision};
use crate::call::view::CallView;
use crate::record::metadata::Recording;

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
        requests::make_call,
        requests::request,
        supervision::monitor,
        supervision::cancel,
        events::server_sent,
        events::web_socket,
        agents::desktop,
        reporting::server_sent,
        http::recordings,
        http::recording,
        http::delete,
        media::media,
    ),
    components(schemas(problem::Body, CallView, Recording, RecordingPage)),
    modifiers(&Requests, &Common),
    tags(
        (name = "server", description = "Is it alive, is it ready, how is it"),
        (name = "calls", description = "Live calls, and what is asked of them"),
        (name = "events", description = "What happens"),
        (name = "agents", description = "Agents invite each other into calls"),
        (name = "recordings", description = "What was recorded"),
    ),
    security(("token" = [])),
)]
struct Document;

/// One path for every request, each with the fields that it takes: the handler's own path stands for all of them.
struct Requests;

impl Modify for Requests {
    fn modify(&self, document: &mut openapi::OpenApi) {
        const GENERIC: &str = "/v1/calls/{ConnID}/{request}";
        let components = document.components.get_or_insert_default();
        let (Some(RefOr::T(Schema::Object(body))), Some(PathItem { post: Some(generic), .. })) =
            (components.schemas.remove("RequestBody"), document.paths.paths.remove(GENERIC))
        else {
            return;
        };
        // Each names the ones that it takes.
        let Some(RefOr::T(Schema::Object(extensions))) = components.schemas.remove("Extensions") else { return };
        for takes in TAKES {
            let path = GENERIC.replace("{request}", takes.name);
            let operation = request(&generic, takes, &body, &extensions);
            document.paths.paths.insert(path, PathItem::new(openapi::HttpMethod::Post, operation));
        }
        let new = document.paths.paths.get_mut("/v1/calls").and_then(|item| item.post.as_mut());
        if let Some(new) = new {
            new.request_body = Some(RefOr::T(takes(&MAKE_CALL, &body, &extensions)));
        }
    }
}

/// The body of one request.
fn takes(takes: &Takes, body: &Object, extensions: &Object) -> RequestBody {
    let mut body = body.clone();
    for (field, need) in [
        ("OtherDN", takes.other_dn),
        ("OtherConnID", takes.other_conn_id),
        ("RecordingID", takes.recording_id),
        ("Digits", takes.digits),
    ] {
        match need {
            Need::No => _ = body.properties.remove(field),
            Need::May => {}
            Need::Must => {
                body.required.push(field.into());
                // What may be left out may be null as well; this may not.
                match body.properties.get_mut(field) {
                    Some(RefOr::T(Schema::Object(text))) => text.schema_type = Type::String.into(),
                    Some(RefOr::T(Schema::OneOf(either))) => {
                        either.items.retain(|item| matches!(item, RefOr::Ref(_)));
                    }
                    _ => {}
                }
            }
        }
    }
    if takes.extensions.is_empty() {
        body.properties.remove("Extensions");
    } else {
        let mut own = extensions.clone();
        own.properties.retain(|name, _| takes.extensions.contains(&name.as_str()));
        own.schema_type = SchemaType::from_iter([Type::Object, Type::Null]);
        body.properties.insert("Extensions".into(), RefOr::T(Schema::Object(own)));
    }
    let content = ContentBuilder::new().schema(Some(Schema::Object(body))).build();
    let body = RequestBodyBuilder::new().content("application/json", content);
    body.required(Some(openapi::Required::True)).build()
}

fn request(generic: &Operation, takes: &Takes, body: &Object, extensions: &Object) -> Operation {
    let mut operation = generic.clone();
    operation.operation_id = Some(takes.name.to_owned());
    operation.summary = Some(takes.about.to_owned());
    operation.request_body = Some(RefOr::T(self::takes(takes, body, extensions)));
    let of_the_call = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(known) if known.name == "ConnID");
    operation.parameters.get_or_insert_default().retain(of_the_call);
    operation
}

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
