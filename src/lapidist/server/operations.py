"""The endpoints that describe the server: models, health, metrics, version."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from lapidist.server.limits import check_model
from lapidist.server.protocol.models import Health, ModelCard, ModelList, Version
from lapidist.server.serving import VERSION, Serving

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> ModelList:
    """The names under which the model is served."""
    serving = Serving.of(request)
    return ModelList(data=[_card(serving, name) for name in serving.names])


@router.get("/v1/models/{model:path}")
async def retrieve_model(request: Request, model: str) -> ModelCard:
    """One of them."""
    serving = Serving.of(request)
    check_model(model, serving.names)
    return _card(serving, model)


@router.get("/health")
async def health(request: Request) -> Health:
    """200 while requests are accepted, 503 when the server is stopping or its engine has died."""
    Serving.of(request).lifecycle.check_accepting()
    return Health()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms in Prometheus' text format."""
    content_type = "text/plain; version=0.0.4; charset=utf-8"
    return Response(Serving.of(request).metrics.render(), media_type=content_type)


@router.get("/version")
async def version() -> Version:
    """The version of Lapidist."""
    return Version(version=VERSION)


def _card(serving: Serving, name: str) -> ModelCard:
    return ModelCard(
        id=name,
        created=serving.created,
        root=serving.engine.model_name,
        max_model_len=serving.engine.max_model_len,
    )
