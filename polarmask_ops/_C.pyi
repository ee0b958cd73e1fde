from typing import TypedDict

class BuildInfo(TypedDict):
    version: str
    torch: str
    compiler: str
    cuda: str | None
    cuda_archs: str

MIN_RAYS: int
MAX_RAYS: int
POLAR_IOU_FLOOR: float
ISAS: list[str]

def build_info() -> BuildInfo: ...
def ray_direction(k: int, num_rays: int) -> tuple[float, float]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
