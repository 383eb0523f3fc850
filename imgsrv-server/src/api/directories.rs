use imgsrv_core::Engine;
use imgsrv_core::model::{ImageName, Manifest, NameInDirectory, NamedFile, Reference, named_files};
use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::web::Data;
use poem::{IntoResponse, Request, Response};
use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::Tag;
use crate::caching::{REVALIDATE, document_with};
use crate::directory::{DirectoryPage, FileAnswer};
use crate::download::{File, IMMUTABLE};
use crate::negotiation::Wishes;
use crate::problem::Problem;
use crate::text::Text;
use crate::view::Directory;

pub(crate) struct DirectoriesApi;

/// The list of checksums in each directory, as `sha256sum` writes and reads it.
pub(crate) const SUMS: &str = "SHA256SUMS";

#[OpenApi(tag = "Tag::Downloads")]
impl DirectoriesApi {
    /// List the files of a version
    ///
    /// By the name of a published version, or by an alias: then the alias stands in the names of the files. JSON, or a
    /// page where a browser asks.
    #[oai(path = "/d/:image/:reference/", method = "get", operation_id = "list_files")]
    async fn list_files(
        &self,
        engine: Data<&Engine>,
        image: Path<Text<ImageName>>,
        reference: Path<Text<Reference>>,
        request: &Request,
    ) -> Result<DirectoryPage, Problem> {
        if let Some(elsewhere) = crate::directory::with_slash(request) {
            return Ok(DirectoryPage(elsewhere));
        }
        let release = Release::find(&engine, &image.0.0, reference.0.0).await?;
        let wishes = Wishes::of(request.headers(), &header::ACCEPT);
        let json = wishes.weight("application/json", &["application/*", "*/*"]);
        let page = if wishes.named("text/html").is_some_and(|html| html > 0 && html >= json) {
            let html = crate::directory::page(&release.manifest, &release.reference, &release.files());
            document_with(request, "text/html; charset=utf-8", html.into_bytes(), REVALIDATE)
        } else {
            let view = Directory::new(&release.manifest, &release.reference, &release.files());
            document_with(request, "application/json", view.json().into_bytes(), REVALIDATE)
        };
        Ok(DirectoryPage(release.named(page, "./")))
    }

    /// Download a file of a version
    ///
    /// `SHA256SUMS` and `{file}.sha256` are there beside the files that the directory lists. In the directory of an alias
    /// the files are elsewhere (302): where they stay.
    #[oai(path = "/d/:image/:reference/:file", method = "get", operation_id = "download_file")]
    async fn download_file(
        &self,
        engine: Data<&Engine>,
        image: Path<Text<ImageName>>,
        reference: Path<Text<Reference>>,
        /// The name of a file in the directory.
        file: Path<Text<NameInDirectory>>,
        request: &Request,
    ) -> Result<FileAnswer, Problem> {
        let release = Release::find(&engine, &image.0.0, reference.0.0).await?;
        let (file, files) = (file.0.0.as_ref(), release.files());
        if let Some(at) = files.iter().position(|named| named.name == file) {
            return Ok(FileAnswer(if release.is_alias() {
                release.elsewhere(at)
            } else {
                release.send(&engine, request, &files[at]).await?
            }));
        }
        let (sums, canonical) = if file == SUMS {
            (files.iter().map(sum).collect(), SUMS.to_owned())
        } else {
            let summed =
                file.strip_suffix(".sha256").and_then(|name| files.iter().position(|named| named.name == name));
            let at = summed.ok_or_else(|| Problem::not_found("there is no such file"))?;
            (sum(&files[at]), format!("{}.sha256", release.canonical(at)))
        };
        let policy = if release.is_alias() { REVALIDATE } else { IMMUTABLE };
        let sums = document_with(request, "text/plain; charset=utf-8", String::into_bytes(sums), policy);
        Ok(FileAnswer(release.named(sums, &canonical)))
    }
}

/// A published version, under the name by which it was asked for.
struct Release {
    manifest: Manifest,
    reference: Reference,
}

impl Release {
    async fn find(engine: &Engine, image: &ImageName, reference: Reference) -> Result<Self, Problem> {
        Ok(Self { manifest: engine.resolve_manifest(image, &reference).await?, reference })
    }

    fn is_alias(&self) -> bool {
        self.reference.as_ref() != self.manifest.version.version.as_ref()
    }

    fn files(&self) -> Vec<NamedFile<'_>> {
        named_files(&self.manifest.image.name, self.reference.as_ref(), &self.manifest.artifacts)
    }

    async fn send(&self, engine: &Engine, request: &Request, file: &NamedFile<'_>) -> Result<Response, Problem> {
        let download = File::published(file.blob(), file.created_at(), file.name.clone()).send(engine, request).await?;
        Ok(download.into_response())
    }

    /// Where the file stays that this alias has at that place among its own.
    fn elsewhere(&self, at: usize) -> Response {
        let name = self.canonical(at);
        // Relative, because only a proxy in front may know what this server is called outside.
        let place = format!("../{}/{name}", self.manifest.version.version);
        let response = Response::builder().status(StatusCode::FOUND).header(header::LOCATION, place);
        self.named(response.header(header::CACHE_CONTROL, REVALIDATE).finish(), &name)
    }

    /// What the file at that place is called in the directory of the version.
    fn canonical(&self, at: usize) -> String {
        let Manifest { image, version, artifacts } = &self.manifest;
        named_files(&image.name, version.version.as_ref(), artifacts).swap_remove(at).name
    }

    /// Says which version an alias means now, and where it is found for as long as it exists.
    fn named(&self, mut response: Response, file: &str) -> Response {
        const VERSION: HeaderName = HeaderName::from_static("x-imgsrv-version");
        if self.is_alias() {
            let version = &self.manifest.version.version;
            let link = format!("<../{version}/{}>; rel=\"canonical\"", file.trim_start_matches("./"));
            let headers = response.headers_mut();
            headers.extend(HeaderValue::try_from(version.as_ref()).ok().map(|version| (VERSION, version)));
            headers.extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
        }
        response
    }
}

/// A line of `sha256sum`: the name is one that needs no escaping.
fn sum(file: &NamedFile<'_>) -> String {
    format!("{}  {}\n", file.blob().digest.hex(), file.name)
}
