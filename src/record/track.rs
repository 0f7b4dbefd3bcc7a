//! One leg's decoded samples on its own grid: reorder, place, decode, conceal.
