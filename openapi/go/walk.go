// The whole tutorial with the generated client: from the bootstrap token to the downloaded bytes.
//
// Needs IMGSRV and BOOTSTRAP_TOKEN of a fresh server, and leaves disk.qcow2 in the current folder.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"demo/imgsrv"
)

const partSize = 8 << 20

var client *imgsrv.APIClient

func main() {
	configuration := imgsrv.NewConfiguration()
	configuration.Servers = imgsrv.ServerConfigurations{{URL: os.Getenv("IMGSRV")}}
	client = imgsrv.NewAPIClient(configuration)

	writer := writerContext(withToken(os.Getenv("BOOTSTRAP_TOKEN")))
	disk, buildLog := make([]byte, 20<<20), []byte("built\n")
	rand.Read(disk)
	check(os.WriteFile("disk.qcow2", disk, 0o644))
	check(os.WriteFile("build.log", buildLog, 0o644))
	upload(writer, "disk.qcow2", disk)
	upload(writer, "build.log", buildLog)
	publish(writer, disk, buildLog)
	download(disk)
	refusals(writer)
}

func withToken(token string) context.Context {
	return context.WithValue(context.Background(), imgsrv.ContextAccessToken, token)
}

// writerContext carries the token of a new principal that may publish.
func writerContext(manager context.Context) context.Context {
	principal := good(client.AuthAPI.CreatePrincipal(manager).
		CreatePrincipal(*imgsrv.NewCreatePrincipal("image builder", imgsrv.PRINCIPALKIND_SERVICE)).Execute())
	_, err := client.AuthAPI.AssignRole(manager, principal.Id, imgsrv.ROLEID_CONTENT_WRITER).Execute()
	check(err)
	token := good(client.AuthAPI.IssueApiToken(manager, principal.Id).
		IssueApiToken(*imgsrv.NewIssueApiToken(time.Now().Add(24 * time.Hour))).Execute())
	return withToken(token.Plaintext)
}

// upload sends a file in parts, the last one first.
func upload(writer context.Context, path string, content []byte) {
	session := good(client.UploadsAPI.BeginUpload(writer).
		BeginUpload(*imgsrv.NewBeginUpload(digest(content), int64(len(content)))).Execute())
	var parts []imgsrv.ListedPart
	for number := (len(content) + partSize - 1) / partSize; number > 0; number-- {
		file := good2(os.CreateTemp(".", "part"))
		good2(file.Write(content[(number-1)*partSize : min(number*partSize, len(content))]))
		good2(file.Seek(0, io.SeekStart))
		part := good(client.UploadsAPI.PutPart(writer, session.Id, int64(number)).Body(file).Execute())
		check(os.Remove(file.Name()))
		parts = append(parts, *imgsrv.NewListedPart(part.Etag, part.PartNumber, part.SizeBytes))
	}
	now := good(client.UploadsAPI.CompleteUpload(writer, session.Id).
		CompleteUpload(*imgsrv.NewCompleteUpload(parts)).Execute())
	for now.State != imgsrv.UPLOADSTATE_READY {
		ensure(now.State != imgsrv.UPLOADSTATE_FAILED, now.GetFailureReason())
		time.Sleep(100 * time.Millisecond)
		now = good(client.UploadsAPI.GetUpload(writer, session.Id).Execute())
	}
}

func publish(writer context.Context, disk, buildLog []byte) {
	image := imgsrv.NewCreateImage("demo")
	image.SetDisplayName("Demo")
	good(client.ImagesAPI.CreateImage(writer).CreateImage(*image).Execute())
	good(client.VersionsAPI.CreateVersion(writer, "demo").
		CreateVersion(*imgsrv.NewCreateVersion("1.0")).Execute())
	artifact := good(client.ArtifactsAPI.AddArtifact(writer, "demo", "1.0").
		AddArtifact(imgsrv.AddArtifact{
			OperatingSystem:      "linux",
			Architecture:         "amd64",
			Format:               imgsrv.FORMAT_QCOW2,
			PrimaryBlobDigest:    digest(disk),
			PrimaryBlobSizeBytes: int64(len(disk)),
			PrimaryMediaType:     "application/x-qemu-disk",
		}).Execute())
	good(client.AttachmentsAPI.AddAttachment(writer, "demo", "1.0", artifact.Id).
		AddAttachment(imgsrv.AddAttachment{
			Name:          "build.log",
			MediaType:     "text/plain",
			BlobDigest:    digest(buildLog),
			BlobSizeBytes: int64(len(buildLog)),
		}).Execute())
	job := good(client.VersionsAPI.PublishVersion(writer, "demo", "1.0").Execute())
	for job.State != imgsrv.JOBSTATE_SUCCEEDED {
		ensure(job.State != imgsrv.JOBSTATE_FAILED, job.GetFailureMessage())
		time.Sleep(100 * time.Millisecond)
		job = good(client.PublishingAPI.GetJob(writer, job.Id).Execute())
	}
	good(client.AliasesAPI.PutAlias(writer, "demo", "latest").PutAlias(*imgsrv.NewPutAlias("1.0")).Execute())
}

func download(disk []byte) {
	anybody := context.Background()
	version := good(client.AliasesAPI.Resolve(anybody, "demo", "latest").Execute()).Version
	artifact := good(client.VersionsAPI.GetManifest(anybody, "demo", version).Execute()).Artifacts[0].Artifact
	file, answer, err := client.ArtifactsAPI.DownloadArtifact(anybody, "demo", version, artifact.Id).Execute()
	check(err)
	ensure(bytes.Equal(read(file), disk), "the bytes are the same")
	etag := answer.Header.Get("ETag")
	ensure(etag == `"`+artifact.PrimaryBlobDigest+`"`, etag)
	file, answer, err = client.ArtifactsAPI.DownloadArtifact(anybody, "demo", version, artifact.Id).
		Range_("bytes=100-199").IfRange(etag).Execute()
	check(err)
	ensure(answer.StatusCode == http.StatusPartialContent, answer.Status)
	ensure(bytes.Equal(read(file), disk[100:200]), "the range is that of the bytes")
}

// refusals are problems with a type.
func refusals(writer context.Context) {
	_, _, err := client.ImagesAPI.GetImage(context.Background(), "nothing").Execute()
	ensure(problem(err).Type == "urn:imgsrv:problem:not-found", err)
	_, _, err = client.ImagesAPI.CreateImage(writer).CreateImage(*imgsrv.NewCreateImage("demo")).Execute()
	ensure(problem(err).Type == "urn:imgsrv:problem:already-exists", err)
}

func problem(err error) imgsrv.Problem {
	var refused *imgsrv.GenericOpenAPIError
	ensure(errors.As(err, &refused), err)
	return refused.Model().(imgsrv.Problem)
}

func read(file *os.File) []byte {
	defer os.Remove(file.Name())
	good2(file.Seek(0, io.SeekStart))
	return good2(io.ReadAll(file))
}

func digest(content []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(content))
}

// good is what was asked for; what was refused ends the walk.
func good[T any](value T, _ *http.Response, err error) T {
	return good2(value, err)
}

func good2[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	var refused *imgsrv.GenericOpenAPIError
	if errors.As(err, &refused) {
		log.Fatalf("%v: %s", err, refused.Body())
	}
	ensure(err == nil, err)
}

func ensure(holds bool, what any) {
	if !holds {
		panic(what)
	}
}
