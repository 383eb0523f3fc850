use std::io;

use futures_util::stream;
use imgsrv_core::Engine;
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Body, IntoResponse, Request, Response};
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::{ApiResponse, OpenApi};

use super::Tag;
use crate::caching::{REVALIDATE, revalidated};
use crate::capacity::Capacity;
use crate::coding::{Coding, Compressed};
use crate::edge;
use crate::meta;
use crate::problem::Problem;

pub(crate) struct StreamsApi;

/// The projection whose files these are.
pub(crate) const STREAMS: &str = "streams";

#[OpenApi(prefix_path = "/streams/v1", tag = "Tag::Streams")]
impl StreamsApi {
    /// Get the index of the images for Incus
    ///
    /// Simple Streams, format `index:1.0`. Shows what was published before the request.
    #[oai(path = "/index.json", method = "get", operation_id = "get_streams_index")]
    async fn get_streams_index(
        &self,
        engine: Data<&Engine>,
        compressed: Data<&Compressed>,
        request: &Request,
    ) -> Result<Projected, Problem> {
        Projected::of(&engine, &compressed, request, "v1/index.json").await
    }

    /// Get the images for Incus
    ///
    /// Simple Streams, format `products:1.0`. Paths are relative to the server's root.
    #[oai(path = "/images.json", method = "get", operation_id = "get_streams_images")]
    async fn get_streams_images(
        &self,
        engine: Data<&Engine>,
        compressed: Data<&Compressed>,
        request: &Request,
    ) -> Result<Projected, Problem> {
        Projected::of(&engine, &compressed, request, "v1/images.json").await
    }
}

/// A file that a projection has rendered: 200 or 304.
struct Projected(Response);

impl Projected {
    async fn of(
        engine: &Engine,
        compressed: &Compressed,
        request: &Request,
        path: &'static str,
    ) -> Result<Self, Problem> {
        let file = engine.projected(STREAMS, path).await?;
        let file = file.ok_or_else(|| Problem::not_found("this server does not show Simple Streams"))?;
        let mut response = revalidated(request, &file.digest, REVALIDATE, |response, etag| {
            let response = response.header(header::CONTENT_TYPE, file.media_type);
            let coding = Coding::wished(request.headers());
            if let Some((coding, bytes)) =
                coding.and_then(|coding| Some((coding, compressed.get(path, coding, &file)?)))
            {
                return response
                    // The same document in other bytes, which is what a weak tag says (RFC 9110 §8.8.1).
                    .header(header::ETAG, format!("W/{etag}"))
                    .header(header::CONTENT_ENCODING, coding.name())
                    .header(header::CONTENT_LENGTH, bytes.len())
                    .body(Body::from_bytes(bytes));
            }
            let pieces: Vec<_> = file.body.iter().cloned().map(Ok::<_, io::Error>).collect();
            response
                .header(header::ETAG, etag)
                .header(header::CONTENT_LENGTH, file.size)
                .body(Body::from_bytes_stream(stream::iter(pieces)))
        });
        response.headers_mut().insert(header::VARY, header::ACCEPT_ENCODING.into());
        if response.status() == StatusCode::OK && !edge::is_head(request) {
            let place = Capacity::download(request)?;
            let body = response.take_body().into_bytes_stream();
            response.set_body(Body::from_bytes_stream(place.kept_by(body)));
        }
        Ok(Self(response))
    }
}

impl IntoResponse for Projected {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Projected {
    fn meta() -> MetaResponses {
        let headers = || {
            vec![
                meta::header("ETag", "Names this state, weakly where it is compressed; send it as If-None-Match."),
                meta::header("Cache-Control", "`no-cache`"),
                meta::header("Vary", "`Accept-Encoding`: gzip and zstd are sent once they are made."),
            ]
        };
        MetaResponses {
            responses: vec![
                meta::answer(200, "The document", vec![meta::content("application/json", "object")], headers()),
                meta::answer(304, meta::UNCHANGED, vec![], headers()),
            ],
        }
    }

    fn register(_registry: &mut Registry) {}
}
