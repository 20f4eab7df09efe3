"""A stand-in for the hub's file API on this machine's loopback, as far as its client and `datasets` ask for it."""
import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from servers import Reply, Server

TOKEN = "hf_token-of-the-test-0123456789"
LARGE = (".safetensors", ".png", ".parquet")  # what the hub keeps by the LFS protocol
REPOSITORY = r"(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Repository:
    private: bool = True
    commits: dict = field(default_factory=dict)  # oid -> {path: bytes}
    refs: dict = field(default_factory=dict)  # branch or tag -> oid

    def commit(self, files, branch="main"):
        "A new commit with these files changed; None takes one away."
        changed = {**self.commits.get(self.refs.get(branch), {}), **files}
        kept = {path: content for path, content in changed.items() if content is not None}
        named = repr((len(self.commits), sorted((path, sha256(content)) for path, content in kept.items())))
        oid = hashlib.sha1(named.encode()).hexdigest()
        self.commits[oid], self.refs[branch] = kept, oid
        return oid


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path, content):
    "A file as a listing has it."
    found = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if path.endswith(LARGE):
        found["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return found


def listing(files, folder, recursive):
    "Files and folders below a folder."
    inside = {path: content for path, content in files.items() if path.startswith(folder)}
    found, folders = [], set()
    for path, content in sorted(inside.items()):
        parts = path.removeprefix(folder).split("/")
        above = [folder + "/".join(parts[: i + 1]) for i in range(len(parts) - 1)]
        folders |= set(above if recursive else above[:1])
        if recursive or len(parts) == 1:
            found.append(entry(path, content))
    return [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)] + found


def missing(code):
    return Reply({"error": code}, 404, {"X-Error-Code": code})


class Hub(Server):
    "Repositories with commits; `asked` keeps method and path of all requests."

    def __init__(self):
        self.repositories, self.large, self.asked = {}, {}, []
        super().__init__(self._reply)

    def put(self, name, files, branch="main", private=False):
        "A commit in a repository such as 'datasets/ada/questions', which is made where it is not there."
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit(files, branch)

    def files(self, name, revision="main"):
        "Path -> content of a repository such as 'models/ada/sure'."
        repository = self.repositories[name]
        return repository.commits[repository.refs.get(revision, revision)]

    def _reply(self, asked):
        address = urlsplit(asked.path)
        path = unquote(address.path)
        with self.lock:
            self.asked.append((asked.method, path))
            for pattern, answer in ROUTES.items():
                found = re.fullmatch(pattern, f"{asked.method} {path}")
                if found:
                    return self._allowed(asked, found.groupdict(), parse_qs(address.query), answer)
        return Reply({"error": f"the stand-in has no {asked.method} {path}"}, 501)

    def _allowed(self, asked, parts, query, answer):
        "What `answer` says, where the token in the request is good enough for it."
        known = asked.headers.get("Authorization") == f"Bearer {TOKEN}"
        writes = asked.method in ("POST", "PUT") and not asked.path.split("?")[0].endswith(("validate-yaml",))
        if writes and "paths-info" not in asked.path and "/lfs/" not in asked.path and not known:
            return Reply({"error": "Invalid credentials in Authorization header"}, 401)
        if "name" in parts:
            parts["kind"] = (parts.get("kind") or "models").rstrip("/")
            repository = self.repositories.get(f"{parts['kind']}/{parts['name']}")
            if repository is None or repository.private and not known:
                return missing("RepoNotFound")
            parts["repository"] = repository
        if "revision" in parts and parts["repository"].commits:
            refs, revision = parts["repository"].refs, parts["revision"] or "main"
            parts["commit"] = refs.get(revision, revision)
            if parts["commit"] not in parts["repository"].commits:
                return missing("RevisionNotFound")
        return answer(self, asked, parts, query)


def create(hub, asked, parts, query):
    owner, name = asked.body.get("organization") or "ada", asked.body["name"]
    key = f"{asked.body.get('type', 'model')}s/{owner}/{name}"
    if key in hub.repositories:
        return Reply({"error": "You already created this model repo"}, 409)
    hub.repositories[key] = Repository(asked.body.get("visibility") == "private")
    return Reply({"url": f"{hub.url}/{owner}/{name}", "name": f"{owner}/{name}"})


def info(hub, asked, parts, query):
    files = parts["repository"].commits.get(parts.get("commit"), {})
    about = {"id": parts["name"], "_id": "0", "sha": parts.get("commit"), "private": parts["repository"].private}
    dates = {"lastModified": DATE, "createdAt": DATE}
    return Reply({**about, **dates, "tags": [], "siblings": [{"rfilename": path} for path in sorted(files)]})


def tree(hub, asked, parts, query):
    files = parts["repository"].commits[parts["commit"]]
    folder = f"{parts['folder']}/" if parts["folder"] else ""
    found = listing(files, folder, query.get("recursive", ["false"])[0].lower() in ("true", "1"))
    return Reply(found) if found or not folder else missing("EntryNotFound")


def paths_info(hub, asked, parts, query):
    files, form = parts["repository"].commits[parts["commit"]], parse_qs(asked.content.decode())
    return Reply([found for found in listing(files, "", True) if found["path"] in form["paths"]])


def preupload(hub, asked, parts, query):
    present = parts["repository"].commits.get(parts.get("commit"), {})
    found = []
    for file in asked.body["files"]:
        path = file["path"]
        large = path.endswith(LARGE)
        about = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if path in present:
            about["oid"] = sha256(present[path]) if large else git_oid(present[path])
        found.append(about)
    return Reply({"files": found})


def batch(hub, asked, parts, query):
    objects = []
    for wanted in asked.body["objects"]:
        upload = {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}", "header": {}}}
        objects.append({**wanted, **({} if wanted["oid"] in hub.large else {"actions": upload})})
    return Reply({"transfer": "basic", "objects": objects})


def keep_large(hub, asked, parts, query):
    if sha256(asked.content) != parts["oid"]:
        return Reply({"error": "other bytes than announced"}, 422)
    hub.large[parts["oid"]] = asked.content
    return Reply()


def commit(hub, asked, parts, query):
    files = {}
    for line in asked.content.splitlines():
        said = json.loads(line)
        value = said["value"]
        if said["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif said["key"] == "lfsFile":
            files[value["path"]] = hub.large[value["oid"]]
    oid = parts["repository"].commit(files, parts["revision"])
    return Reply({"commitUrl": f"{hub.url}/{parts['name']}/commit/{oid}", "commitOid": oid, "success": True})


def resolve(hub, asked, parts, query):
    repository, path = parts["repository"], parts["path"]
    files = repository.commits[parts["commit"]]
    headers = {"X-Repo-Commit": parts["commit"], "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
    if path not in files:
        return Reply({"error": "no such file"}, 404, {"X-Error-Code": "EntryNotFound", **headers})
    content = files[path]
    headers["ETag"] = f'"{sha256(content) if path.endswith(LARGE) else git_oid(content)}"'
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range") or "")
    if not span:
        return Reply(content, headers=headers)
    first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Reply(content[first : last + 1], 206, headers)


GIT = r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)"
ROUTES = {
    r"POST /api/repos/create": create,
    r"POST /api/validate-yaml": lambda *asked: Reply({"errors": [], "warnings": []}),
    rf"GET /api/{REPOSITORY}(/revision/(?P<revision>.+))?": info,
    rf"GET /api/{REPOSITORY}/tree/(?P<revision>[^/]+)/?(?P<folder>.*)": tree,
    rf"POST /api/{REPOSITORY}/paths-info/(?P<revision>.+)": paths_info,
    rf"POST /api/{REPOSITORY}/preupload/(?P<revision>.+)": preupload,
    rf"POST /api/{REPOSITORY}/commit/(?P<revision>.+)": commit,
    rf"POST {GIT}\.git/info/lfs/objects/batch": batch,
    r"PUT /lfs/(?P<oid>[0-9a-f]{64})": keep_large,
    rf"(GET|HEAD) {GIT}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": resolve,
}
