"""Tables of the simulator: backscatter of the classes, composition of the landscapes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LandCover:
    """Backscatter of a class at an incidence of 38 degrees.

    Attributes:
      vh: typical VH backscatter, dB.
      vv: typical VV backscatter, dB.
      texture: order of the gamma texture; larger is smoother.
      region_std: standard deviation between regions of the class in a scene, dB.
      slope_vh: change of VH with incidence, dB per degree.
      slope_vv: change of VV with incidence, dB per degree.
      targets: point targets per pixel.
      scene_std: standard deviation of the class between scenes, both bands together, dB: phenology,
        weather, biome.
      relief: True if slopes of the ground modulate the backscatter.
    """

    vh: float
    vv: float
    texture: float
    region_std: float = 1.3
    slope_vh: float = -0.15
    slope_vv: float = -0.15
    targets: float = 1e-4
    scene_std: float = 1.2
    relief: bool = True


# Typical values are domain knowledge; calm water was measured: -27.7 (VH) and -20.7 dB (VV).
CLASSES = {
    "Calm water": LandCover(-28.0, -21.0, 80, 0.0, -0.3, -0.7, 2e-5, 1.8, relief=False),
    "Wind-roughened water": LandCover(-26.0, -14.5, 60, 0.0, -0.3, -0.8, 5e-5, 1.8, relief=False),
    "Crops": LandCover(-18.2, -11.7, 30),
    "Bare soil": LandCover(-20.5, -12.7, 35),
    "Wet soil": LandCover(-17.5, -9.7, 30),
    "Grassland": LandCover(-17.0, -11.5, 40),
    "Forest": LandCover(-13.7, -8.3, 30, 0.8, -0.1, -0.1, 3e-5),
    "Urban": LandCover(-13.0, -7.0, 3, targets=0.012),
    "Wetland": LandCover(-18.0, -11.0, 15),
    "Smooth sand or asphalt": LandCover(-27.0, -20.0, 30, 1.8, -0.2, -0.2),
    "Snow or frozen ground": LandCover(-21.8, -15.0, 30),
}
NUMBER = {name: number for number, name in enumerate(CLASSES)}


@dataclasses.dataclass(frozen=True)
class Landscape:
    """Composition of a scene.

    Attributes:
      share: of the scenes, 0 to 1.
      parcels: weight of each class among the parcels of open land.
      parcel: shortest and longest mean length of parcels, pixels.
      warp: amplitude of the curvature of parcel borders, pixels.
      forest: lowest and highest share of the scene that is forest.
      urban: lowest and highest share that is built up.
      water: probabilities of a lake, a river and a coast.
      hedges: highest gain along borders of parcels, dB.
      relief: highest standard deviation due to slopes of the ground, dB.
    """

    share: float
    parcels: dict[str, float]
    parcel: tuple[float, float] = (14.0, 34.0)
    warp: float = 1.5
    forest: tuple[float, float] = (0.0, 0.25)
    urban: tuple[float, float] = (0.0, 0.03)
    water: tuple[float, float, float] = (0.08, 0.15, 0.0)
    hedges: float = 3.0
    relief: float = 1.0


LANDSCAPES = {
    "arable": Landscape(
        0.28, {"Crops": 0.55, "Bare soil": 0.2, "Wet soil": 0.1, "Grassland": 0.15}
    ),
    "pasture": Landscape(
        0.18,
        {"Grassland": 0.75, "Crops": 0.15, "Bare soil": 0.05, "Wetland": 0.05},
        parcel=(10.0, 22.0),
        hedges=6.0,
    ),
    "woodland": Landscape(
        0.22,
        {"Grassland": 0.4, "Wetland": 0.25, "Crops": 0.25, "Bare soil": 0.1},
        warp=4.0,
        forest=(0.5, 0.95),
        urban=(0.0, 0.005),
        water=(0.3, 0.15, 0.0),
        relief=2.0,
    ),
    "coast": Landscape(
        0.13,
        {"Grassland": 0.4, "Crops": 0.35, "Wetland": 0.1, "Smooth sand or asphalt": 0.15},
        urban=(0.0, 0.1),
        water=(0.0, 0.0, 1.0),
    ),
    "town": Landscape(
        0.07,
        {"Grassland": 0.4, "Crops": 0.3, "Bare soil": 0.1, "Smooth sand or asphalt": 0.2},
        parcel=(8.0, 18.0),
        urban=(0.25, 0.7),
        water=(0.05, 0.2, 0.1),
    ),
    "wetland": Landscape(
        0.05,
        {"Wetland": 0.75, "Grassland": 0.15, "Wet soil": 0.1},
        parcel=(20.0, 45.0),
        warp=8.0,
        water=(0.5, 0.3, 0.1),
        hedges=0.0,
        relief=0.3,
    ),
    "winter": Landscape(
        0.04,
        {"Snow or frozen ground": 0.85, "Bare soil": 0.15},
        forest=(0.1, 0.6),
        relief=2.0,
    ),
    "barren": Landscape(
        0.03,
        {"Smooth sand or asphalt": 0.5, "Bare soil": 0.5},
        parcel=(20.0, 45.0),
        warp=8.0,
        forest=(0.0, 0.02),
        water=(0.05, 0.0, 0.1),
        hedges=0.0,
        relief=2.0,
    ),
}
