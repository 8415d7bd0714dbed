"""/healthz, /readyz and /metrics of the operator, on one port."""

from aiohttp import web

from posttrain_operator import metrics
from posttrain_operator.controller import Controller


async def serve(controller: Controller, *, port: int) -> web.AppRunner:
    """Starts to answer; the caller cleans the runner up. Raises ``OSError`` when the port is taken."""

    async def healthz(_: web.Request) -> web.Response:
        trouble = controller.trouble()
        return web.Response(text=trouble or "ok", status=500 if trouble else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok" if controller.ready else "filling", status=200 if controller.ready else 503)

    async def metrics_page(_: web.Request) -> web.Response:
        controller.measure()
        return web.Response(body=metrics.exposition(), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics_page)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
