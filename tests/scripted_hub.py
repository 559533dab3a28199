"""A stand-in for the Hugging Face Hub on loopback: its repositories, and what it was asked."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.servers import answering

TOKEN = "hf_TokenOfTheTestsThatMustNotBeSeen00"


@dataclass
class ScriptedHub:
    """Repositories by type and name, each with its files, and whether it is private."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    refusal: int | None = None
    """Status with which everything but the token's owner is refused."""
    faults: list[str] = field(default_factory=list)
    """Faults that the Hub finds in the metadata of every card."""
    parents: list[str | None] = field(default_factory=list)
    """The commit that each push was to follow."""

    def seen(self, request: Request) -> Response | None:
        """Keeps the token of a request; returns a refusal if there is to be one."""
        token = request.headers.get("authorization", "")
        self.tokens.add(token)
        if token != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid credentials"}, 401)
        return None

    async def whoami(self, request: Request) -> Response:
        return self.seen(request) or JSONResponse({"name": "town", "type": "user", "orgs": []})

    async def create(self, request: Request) -> Response:
        if refused := self.seen(request):
            return refused
        body = json.loads(await request.body())
        name = f"{body['type']}s/{body.get('organization') or 'town'}/{body['name']}"
        if self.refusal:
            return JSONResponse({"error": "You do not have the rights"}, self.refusal)
        private = body.get("private", body.get("visibility") == "private")
        self.files[name], self.private[name] = {}, bool(private)
        return JSONResponse({"url": f"{self.url}/{name}", "name": name})

    def place(self, request: Request) -> str:
        return "{kind}/{owner}/{name}".format(**request.path_params)

    async def validate(self, request: Request) -> Response:
        errors = [{"message": fault} for fault in self.faults]
        return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)

    async def info(self, request: Request) -> Response:
        name = self.place(request)
        if name not in self.files:
            headers = {"X-Error-Code": "RepoNotFound"}
            return JSONResponse({"error": "Repository not found"}, 404, headers=headers)
        return JSONResponse(
            {
                "id": name.split("/", 1)[1],
                "private": self.private[name],
                "sha": "0" * 40,
                "lastModified": "2026-01-02T03:04:05.000Z",
                "siblings": [{"rfilename": path} for path in self.files[name]],
                "tags": [],
            }
        )

    async def tree(self, request: Request) -> Response:
        files = self.files[self.place(request)]
        return JSONResponse(
            [{"type": "file", "path": path, "oid": "0" * 40, "size": 1} for path in files]
        )

    async def preupload(self, request: Request) -> Response:
        if refused := self.seen(request):
            return refused
        files = json.loads(await request.body())["files"]
        told = [
            {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for one in files
        ]
        return JSONResponse({"files": told})

    async def commit(self, request: Request) -> Response:
        if refused := self.seen(request):
            return refused
        name = self.place(request)
        for line in (await request.body()).splitlines():
            operation: dict[str, Any] = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                self.parents.append(value.get("parentCommit"))
            if operation["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                del self.files[name][value["path"]]
        return JSONResponse(
            {"commitUrl": f"{self.url}/{name}/commit/1", "commitOid": "1" * 40, "success": True}
        )


@contextmanager
def scripted_hub() -> Iterator[ScriptedHub]:
    """A hub that answers until the block ends."""
    hub = ScriptedHub()
    repo = "/api/{kind}/{owner}/{name}"
    routes = [
        Route("/api/whoami-v2", hub.whoami),
        Route("/api/repos/create", hub.create, methods=["POST"]),
        Route("/api/validate-yaml", hub.validate, methods=["POST"]),
        Route(repo, hub.info),
        Route(f"{repo}/revision/{{revision}}", hub.info),
        Route(f"{repo}/tree/{{revision}}", hub.tree),
        Route(f"{repo}/preupload/{{revision}}", hub.preupload, methods=["POST"]),
        Route(f"{repo}/commit/{{revision}}", hub.commit, methods=["POST"]),
    ]
    with answering(routes) as hub.url:
        yield hub
